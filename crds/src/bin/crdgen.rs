//! Writes the CRDs as YAML: each into the directory that is named first, all into the file that is named second. Without
//! names, all to standard output.

use std::io::{self, Write};
use std::path::Path;
use std::{env, fs};

fn main() -> io::Result<()> {
    let mut names = env::args_os().skip(1);
    let Some(dir) = names.next() else {
        return io::stdout().write_all(sluice_crds::yaml::all().as_bytes());
    };
    for (name, text) in sluice_crds::yaml::files() {
        fs::write(Path::new(&dir).join(name), text)?;
    }
    if let Some(file) = names.next() {
        fs::write(file, sluice_crds::yaml::all())?;
    }
    Ok(())
}
