//! Compiles the protocols without a system `protoc`.

use prost_build::Config;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in ["client.proto", "fleet.proto"] {
        println!("cargo:rerun-if-changed={file}");
    }
    let mut client = Config::new();
    client.btree_map(["."]).bytes(["."]);
    client.compile_fds(protox::compile(["client.proto"], ["."])?)?;
    let fleet = protox::compile(["fleet.proto"], ["."])?;
    tonic_prost_build::configure().compile_fds(fleet)?;
    Ok(())
}
