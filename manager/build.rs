//! Puts the built page into the program: all files of `SLUICE_PAGE_DIR`, or of `target/page` beside the workspace. Where there are none the
//! program says so; nothing here needs Node.js.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=SLUICE_PAGE_DIR");
    let dir = match env::var_os("SLUICE_PAGE_DIR") {
        Some(dir) => PathBuf::from(dir),
        // As it is now: a build script may have been compiled in another work tree.
        None => {
            let package = env::var_os("CARGO_MANIFEST_DIR");
            let package = package.ok_or_else(|| io::Error::other("no CARGO_MANIFEST_DIR"))?;
            Path::new(&package).join("../target/page")
        }
    };
    println!("cargo::rerun-if-changed={}", dir.display());
    let mut files = Vec::new();
    if dir.join("index.html").is_file() {
        collect(&dir.canonicalize()?, "", &mut files)?;
    }
    files.sort();
    let mut code = String::from("/// Path and content.\nstatic FILES: &[(&str, &[u8])] = &[\n");
    for (name, path) in files {
        writeln!(code, "    ({name:?}, include_bytes!({path:?})),").map_err(io::Error::other)?;
    }
    code.push_str("];\n");
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("no OUT_DIR"))?;
    fs::write(Path::new(&out).join("page.rs"), code)
}

fn collect(dir: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.push((name, entry.path()));
        }
    }
    Ok(())
}
