//! The operator of VOLTTRON instances on Kubernetes. `volttron-operator controller` reconciles
//! `VolttronInstance` and `VolttronCertRequest`.

pub mod approval;
mod broker;
mod controller;
mod leadership;
mod logging;
pub mod pki;
pub mod revocation;

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

/// Runs the role that the command line names, to its end.
///
/// # Errors
/// What the role could not recover from.
pub async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    logging::start(arguments.log_format);
    // A second installation can only be of the same provider, so the result tells nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match arguments.role {
        Role::Controller(settings) => controller::run(settings).await,
    }
}
