//! Writes the CRDs as YAML: into the directory it is given, or else to standard output, one after the other.

use std::io::{self, Write};
use std::path::Path;
use std::{env, fs};

fn main() -> io::Result<()> {
    let dir = env::args_os().nth(1);
    for (name, text) in sluice_crds::yaml::files() {
        match &dir {
            Some(dir) => fs::write(Path::new(dir).join(name), text)?,
            None => write!(io::stdout(), "---\n{text}")?,
        }
    }
    Ok(())
}
