//! Writes the CRDs as YAML: `crdgen DIRECTORY`.

use kube::CustomResourceExt;
use std::path::Path;
use std::process::ExitCode;
use volttron_crds::{VolttronCertRequest, VolttronInstance};

fn main() -> ExitCode {
    let Some(directory) = std::env::args().nth(1) else {
        eprintln!("usage: crdgen DIRECTORY");
        return ExitCode::from(2);
    };
    for crd in [VolttronInstance::crd(), VolttronCertRequest::crd()] {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let path = Path::new(&directory).join(format!("{name}.yaml"));
        let written = serde_yaml_ng::to_string(&crd)
            .map_err(std::io::Error::other)
            .and_then(|yaml| std::fs::write(&path, yaml));
        if let Err(error) = written {
            eprintln!("cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
