"""An example agent: what a VOLTTRON agent does on the bus of a remote instance, in plain pika.

It does its own TLS with the files the sidecar keeps in a memory-backed volume, so it needs no
VOLTTRON and no password. Names, exchanges and framing are VOLTTRON's own.
"""

import json
import os
import signal
import ssl
import sys
import time
import uuid
from datetime import datetime, timezone

import pika
from pika.credentials import ExternalCredentials

CREDENTIALS = os.environ.get("CREDENTIALS_DIR", "/run/volttron")
ADDRESS = os.environ["AMQP_ADDRESS"]  # amqps://<host>:<port>/<virtual host>
TOPIC = os.environ.get("TOPIC", "devices/campus/b1/all")
PERIOD = float(os.environ.get("PERIOD_SECONDS", "5"))
EXCHANGE = "volttron"

# <instance>.<local instance>.<identity>: RabbitMQ user, certificate CN, queue and routing key.
INSTANCE = os.environ["VOLTTRON_INSTANCE"]
IDENTITY = f'{os.environ["VOLTTRON_LOCAL_INSTANCE"]}.{os.environ["VOLTTRON_IDENTITY"]}'
USER = f"{INSTANCE}.{IDENTITY}"


class Terminated(Exception):
    """SIGTERM or SIGINT."""


def terminate(_signal, _frame):
    raise Terminated


def say(text):
    print(text, flush=True)


def connect():
    """Mutual TLS with SASL EXTERNAL: the broker takes the user from the certificate."""
    context = ssl.create_default_context(cafile=f"{CREDENTIALS}/ca.crt")
    context.load_cert_chain(f"{CREDENTIALS}/tls.crt", f"{CREDENTIALS}/tls.key")
    address = pika.URLParameters(ADDRESS)
    parameters = pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=address.virtual_host,
        credentials=ExternalCredentials(),
        # The host is verified against the broker's certificate.
        ssl_options=pika.SSLOptions(context, address.host),
        client_properties={"connection_name": USER},
    )
    return pika.BlockingConnection(parameters)


def routing_key(topic):
    """VOLTTRON publishes the last `.#` literally; receivers drop it together with the prefix."""
    return f"__pubsub__.{INSTANCE}.{topic.replace('/', '.')}.#"


def declare(channel):
    """The agent's own queue, as VOLTTRON declares it, and one persistent subscription."""
    channel.queue_declare(USER, durable=False, exclusive=True, auto_delete=True)
    channel.queue_bind(USER, EXCHANGE, routing_key=USER)
    say(f"declared queue {USER}")
    subscription = f"{USER}.pubsub.persistent.demo"
    channel.queue_declare(subscription, durable=True, exclusive=False, auto_delete=False)
    channel.queue_bind(
        subscription, EXCHANGE, routing_key=f"__pubsub__.{INSTANCE}.devices.#"
    )
    say(f"declared queue {subscription}")


def publish(channel, value):
    """One message as VOLTTRON's pubsub subsystem frames it."""
    now = datetime.now(timezone.utc).isoformat()
    body = {
        "sender": IDENTITY,
        "bus": "",
        "headers": {
            "Date": now,
            "TimeStamp": now,
            "min_compatible_version": "5.0",
            "max_compatible_version": "",
        },
        "message": [
            {"temperature": value},
            {"temperature": {"units": "C", "tz": "UTC", "type": "float"}},
        ],
    }
    properties = pika.BasicProperties(
        app_id=USER,
        type="pubsub",
        message_id=str(uuid.uuid4()),
        content_type="application/json",
        headers={"recipient": "", "proto": "VIP", "user": IDENTITY},
    )
    channel.basic_publish(
        EXCHANGE,
        routing_key(TOPIC),
        json.dumps(body, ensure_ascii=False).encode(),
        properties,
    )
    say(f"published {TOPIC} temperature={value}")


def run():
    """Connects, declares, and publishes until the connection ends."""
    connection = connect()
    say(f"connected to {ADDRESS} as {USER}")
    try:
        channel = connection.channel()
        declare(channel)
        value = 20.0
        while True:
            publish(channel, value)
            value = 20.0 + (value - 19.5) % 5
            # Answers heartbeats while it waits.
            connection.sleep(PERIOD)
    finally:
        if connection.is_open:
            connection.close()
            say("closed the connection")


def main():
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, terminate)
    try:
        while True:
            try:
                run()
            except (pika.exceptions.AMQPError, OSError) as error:
                say(f"no connection: {error!r}; trying again in {PERIOD:g} s")
            time.sleep(PERIOD)
    except Terminated:
        say("terminated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
