//! `make demo`: an agent asks, an administrator approves, and the connection appears on a real
//! RabbitMQ, on a real Kubernetes. Each step is said before it happens, with the command a person
//! would type, and that command is what runs.

mod clock;
mod forward;
mod interrupt;
mod play;
mod show;

use show::Show;
use std::process::ExitCode;

/// The cluster that `KEEP=1` leaves: the one that `make cluster-down` takes down.
const KEPT: &str = "default";

fn main() -> ExitCode {
    let keep = std::env::var_os("KEEP").is_some_and(|value| value == "1");
    let show = Show::begin();
    match perform(&show, keep) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            interrupt::park_if_interrupted();
            show::failed(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn perform(show: &Show, keep: bool) -> anyhow::Result<()> {
    let own = format!("demo-{}", std::process::id());
    let name = if keep { KEPT } else { &own };
    let node = play::start(show, name, keep)?;
    let played = play::play(show, &node);
    // The reason itself comes last, where it is seen.
    if played.is_err() {
        interrupt::park_if_interrupted();
        show::trouble(&node.trouble(&play::NAMESPACES));
    }
    if keep {
        show.kept(&node);
        return played;
    }
    show.say("Taking everything down");
    let down = if node.is_existing() {
        play::clean(show, &node)
    } else {
        node.down()
    };
    played?;
    down?;
    show.done();
    Ok(())
}
