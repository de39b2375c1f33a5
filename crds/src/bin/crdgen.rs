//! Prints the CRDs as YAML.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    io::stdout().write_all(sluice_crds::yaml::gateway_crd().as_bytes())
}
