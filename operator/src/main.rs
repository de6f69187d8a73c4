//! The operator of VOLTTRON instances on Kubernetes. `volttron-operator controller` reconciles
//! `VolttronInstance` and `VolttronCertRequest`.

mod approval;
mod broker;
mod controller;
mod leadership;
mod logging;
mod pki;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "The operator of VOLTTRON instances on Kubernetes")]
struct Arguments {
    /// How log lines look.
    #[arg(
        long,
        env = "VOLTTRON_LOG_FORMAT",
        value_enum,
        default_value_t,
        global = true
    )]
    log_format: logging::Format,
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Reconciles instances and certificate requests; holds the CA keys.
    Controller(controller::Settings),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    logging::start(arguments.log_format);
    // A second installation can only be of the same provider, so the result tells nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match arguments.role {
        Role::Controller(settings) => controller::run(settings).await,
    }
}
