//! `cluster`: a local Kubernetes, up and down.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use local_cluster::{Cache, Cluster, Options, Steps, Tier, Tool, images};

/// A real Kubernetes on this machine, without Docker and without a registry.
#[derive(Debug, Parser)]
#[command(name = "cluster", version)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start a cluster that stays, and print the line that points kubectl at it
    Up {
        /// How much of a Kubernetes
        #[arg(long, value_enum, default_value_t = TierName::Node)]
        tier: TierName,
        /// Its name
        #[arg(long, default_value = "default")]
        name: String,
    },
    /// Take a cluster down; nothing of it stays
    Down {
        /// Its name
        #[arg(long, default_value = "default")]
        name: String,
    },
    /// Show what runs
    List,
    /// Build programs and images into the cache, and start nothing
    Build {
        /// For which tier
        #[arg(long, value_enum, default_value_t = TierName::Node)]
        tier: TierName,
        /// The image of RabbitMQ too
        #[arg(long)]
        rabbitmq: bool,
    },
    /// Build an image and print the path of its OCI archive
    Image {
        /// The Containerfile; it may begin FROM scratch or FROM localhost/rabbitmq:4-management
        #[arg(long)]
        file: PathBuf,
        /// The folder that it copies from
        #[arg(long, default_value = ".")]
        context: PathBuf,
        /// The image's full name, such as localhost/agent:1 or docker.io/library/agent:1
        #[arg(long)]
        tag: String,
    },
    /// Build the image of RabbitMQ, localhost/rabbitmq:4-management, and print the path of its OCI archive
    RabbitmqImage,
    /// Give a running cluster images from OCI archives
    LoadImage {
        /// The archives
        #[arg(required = true)]
        archives: Vec<PathBuf>,
        /// The cluster's name
        #[arg(long, default_value = "default")]
        name: String,
    },
    /// Print the path of kubectl or helm, built first if it must be
    Tool {
        /// Which
        #[arg(value_enum)]
        name: ToolName,
    },
    /// Remove what test runs left that were cut off
    Sweep,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TierName {
    /// etcd, API server and controllers
    Api,
    /// A whole node that runs pods
    Node,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ToolName {
    /// The command line of Kubernetes
    Kubectl,
    /// The installer of charts
    Helm,
}

impl From<ToolName> for Tool {
    fn from(name: ToolName) -> Self {
        match name {
            ToolName::Kubectl => Self::Kubectl,
            ToolName::Helm => Self::Helm,
        }
    }
}

impl From<TierName> for Tier {
    fn from(name: TierName) -> Self {
        match name {
            TierName::Api => Self::Api,
            TierName::Node => Self::Node,
        }
    }
}

fn main() -> ExitCode {
    match act(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if local_cluster::is_interrupted() => loop {
            // The thread that takes the cluster down ends the process.
            std::thread::park();
        },
        Err(error) => {
            // Without the stack: a fault of the machine is no fault of this program.
            let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
            eprintln!("error: {}", causes.join(": "));
            ExitCode::FAILURE
        }
    }
}

fn act(action: Action) -> anyhow::Result<()> {
    match action {
        Action::Up { tier, name } => up(tier.into(), name)?,
        Action::Down { name } => {
            let was_there = local_cluster::take_down(&name)?;
            eprintln!(
                "{name} {}",
                if was_there { "is down" } else { "was not up" }
            );
        }
        Action::List => {
            for name in local_cluster::names()? {
                match Cluster::attach(&name) {
                    Ok(cluster) => println!(
                        "{name}\t{:?}\t{}",
                        cluster.tier(),
                        cluster.kubeconfig().display()
                    ),
                    Err(_) => println!("{name}\t-\tnot a cluster that is up"),
                }
            }
        }
        Action::Build { tier, rabbitmq } => {
            let cache = local_cluster::prepare(tier.into())?;
            if rabbitmq {
                images::rabbitmq(&cache)?;
            }
            eprintln!("all is in {}", cache.root().display());
        }
        Action::Image { file, context, tag } => {
            println!(
                "{}",
                images::build(&Cache::open()?, &file, &context, &tag)?.display()
            );
        }
        Action::RabbitmqImage => println!("{}", images::rabbitmq(&Cache::open()?)?.display()),
        Action::LoadImage { archives, name } => {
            let cluster = Cluster::attach(&name)?;
            for archive in archives {
                cluster.load_image(&archive)?;
            }
        }
        Action::Tool { name } => {
            let path = Tool::from(name).path(&Cache::open()?, &Steps::of(0))?;
            println!("{}", path.display());
        }
        Action::Sweep => {
            for name in local_cluster::sweep()? {
                eprintln!("removed {name}");
            }
        }
    }
    Ok(())
}

fn up(tier: Tier, name: String) -> anyhow::Result<()> {
    if let Ok(cluster) = Cluster::attach(&name) {
        eprintln!("{name} is up already");
        print_line(&cluster);
        return Ok(());
    }
    local_cluster::take_down_when_interrupted(
        name.clone(),
        format!("interrupted: taking {name} down"),
        format!("cluster down --name {name}"),
    );
    let cluster = Cluster::start_detached(&Options {
        tier,
        name: Some(name),
    })?;
    print_line(&cluster);
    Ok(())
}

fn print_line(cluster: &Cluster) {
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
}
