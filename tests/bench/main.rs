//! How fast approved requests become certificates, beside a floor in the same run: a bare client
//! that does only the necessary writes, as many at a time. Both work on the same machine, API
//! server and broker, in turns, so that what the machine does beside concerns both.

mod floor;
mod load;
mod process;

use anyhow::Context as _;
use clap::Parser;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use load::Load;
use local_cluster::Base;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use volttron_crds::{InstanceReference, Phase, VolttronCertRequestStatus};
use volttron_tests::{Broker, Instance, Playground, SYSTEM, Setup, run};

/// The longest that any step may take.
const DEADLINE: Duration = Duration::from_mins(10);

#[derive(Parser)]
#[command(about = "Measures the operator beside a bare client in the same run")]
struct Arguments {
    /// How many requests are approved at once.
    #[arg(long, default_value_t = 1000)]
    requests: usize,
    /// How often both are measured; the median of the ratios counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Writes that the bare client has under way; as many as the operator has.
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Where the figures go as JSON.
    #[arg(long, default_value = "target/bench.json")]
    output: PathBuf,
}

/// One round.
#[derive(Serialize)]
struct Round {
    floor_seconds: f64,
    operator_seconds: f64,
    /// Rate of the operator by rate of the floor.
    ratio: f64,
    operator_cpu_seconds: f64,
    operator_resident_kib: u64,
    operator_peak_kib: u64,
}

#[derive(Serialize)]
struct Report {
    requests: usize,
    concurrency: usize,
    median_ratio: f64,
    goal: f64,
    rounds: Vec<Round>,
}

fn main() -> anyhow::Result<()> {
    run(measure(Arguments::parse()))
}

async fn measure(arguments: Arguments) -> anyhow::Result<()> {
    eprintln!("starting a cluster, a broker and the operator");
    // The operator stands still while the load is approved, and leads all the same.
    let setup = Setup {
        lease_seconds: Some(3600),
        ..Setup::default()
    };
    let playground = Playground::start(setup).await;
    let space = playground.space("bench").await;
    let instance = playground
        .instance(&space.namespace, "central", json!({}))
        .await;
    let broker = instance.start_broker(Base::Machine).await;
    instance.ready().await;
    let load = Load {
        client: playground.admin(),
        agent: space.agent(),
        approver: playground.approver(),
        namespace: space.namespace.clone(),
        instance: InstanceReference {
            name: instance.name.clone(),
            namespace: None,
        },
        requester: space.user.clone(),
        count: arguments.requests,
    };
    let mut rounds = Vec::new();
    println!("| round | floor s | operator s | ratio | operator CPU s | resident MiB | peak MiB |");
    println!("|------:|--------:|-----------:|------:|---------------:|-------------:|---------:|");
    for number in 1..=arguments.rounds {
        let (mut round, example) = operator_turn(&playground, &load).await?;
        eprintln!(
            "round {number}: the operator took {:.2} s",
            round.operator_seconds
        );
        round.floor_seconds = floor_turn(
            &playground,
            &instance,
            &broker,
            &load,
            &example,
            arguments.concurrency,
        )
        .await?
        .as_secs_f64();
        round.ratio = round.floor_seconds / round.operator_seconds;
        println!(
            "| {number} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {:.1} |",
            round.floor_seconds,
            round.operator_seconds,
            round.ratio,
            round.operator_cpu_seconds,
            mebibytes(round.operator_resident_kib),
            mebibytes(round.operator_peak_kib),
        );
        rounds.push(round);
    }
    let report = Report {
        requests: arguments.requests,
        concurrency: arguments.concurrency,
        median_ratio: median(rounds.iter().map(|round| round.ratio).collect()),
        goal: 0.9,
        rounds,
    };
    println!(
        "\nmedian ratio {:.2} (goal {:.1})",
        report.median_ratio, report.goal
    );
    if let Some(folder) = arguments.output.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&arguments.output, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", arguments.output.display()))
}

/// What the operator wrote for one request, as the measure of what the floor writes.
struct Example {
    secret: Secret,
    status: VolttronCertRequestStatus,
}

/// All requests are approved while the operator stands still, so that their approval is not
/// measured; then it is let go.
async fn operator_turn(playground: &Playground, load: &Load) -> anyhow::Result<(Round, Example)> {
    load.file().await?;
    load.wait_for(Phase::Pending, DEADLINE).await?;
    let id = playground
        .operator()
        .pid()
        .context("the operator has ended")?;
    let pid = i32::try_from(id)
        .ok()
        .and_then(Pid::from_raw)
        .context("an odd process id")?;
    let issued_before = issued(playground).await?;
    kill_process(pid, Signal::STOP)?;
    load.approve().await?;
    let cpu_before = process::cpu_seconds(id)?;
    let started = Instant::now();
    kill_process(pid, Signal::CONT)?;
    let all = async {
        while issued(playground).await? - issued_before < load.count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(DEADLINE, all)
        .await
        .context("not all requests were issued in time")??;
    let elapsed = started.elapsed();
    let cpu = process::cpu_seconds(id)? - cpu_before;
    let (resident, peak) = process::resident_kib(id)?;
    load.verify().await?;
    let example = example(load).await?;
    load.clear().await?;
    let round = Round {
        floor_seconds: 0.0,
        operator_seconds: elapsed.as_secs_f64(),
        ratio: 0.0,
        operator_cpu_seconds: cpu,
        operator_resident_kib: resident,
        operator_peak_kib: peak,
    };
    Ok((round, example))
}

/// The same number of requests while the operator is not there.
async fn floor_turn(
    playground: &Playground,
    instance: &Instance<'_>,
    broker: &Broker<'_>,
    load: &Load,
    example: &Example,
    concurrency: usize,
) -> anyhow::Result<Duration> {
    playground.operator().terminate(DEADLINE).await;
    load.file().await?;
    let token = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(3600),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let token = Api::<ServiceAccount>::namespaced(playground.admin(), SYSTEM)
        .create_token_request("volttron-operator", &PostParams::default(), &token)
        .await?
        .status
        .context("no token")?
        .token;
    let target = floor::Broker::of(playground, instance, broker).await?;
    let elapsed = floor::run(
        load,
        &playground.client_with_token(&token),
        &target,
        &example.secret,
        &example.status,
        concurrency,
    )
    .await?;
    load.clear().await?;
    playground.operator().start_again();
    playground.operator().wait_ready().await;
    Ok(elapsed)
}

async fn example(load: &Load) -> anyhow::Result<Example> {
    let request = load.requests().get(&load::name(0)).await?;
    let secret = Api::<Secret>::namespaced(load.client.clone(), &load.namespace)
        .get(&request.secret_name())
        .await?;
    Ok(Example {
        secret,
        status: request.status.context("a request without status")?,
    })
}

/// How many certificates the operator says it has issued since it started.
async fn issued(playground: &Playground) -> anyhow::Result<usize> {
    let metrics = playground
        .operator()
        .get("/metrics")
        .await
        .map_err(anyhow::Error::msg)?;
    let line = metrics
        .body
        .lines()
        .find_map(|line| line.strip_prefix("volttron_certificates_issued_total "));
    line.context("the metric is missing")?
        .trim()
        .parse()
        .context("an odd metric")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        values
            .get(middle)
            .map_or(0.0, |upper| f64::midpoint(values[middle - 1], *upper))
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "memory sizes are far below 2^52 KiB"
)]
fn mebibytes(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
