//! Compiles the trunk's `.proto` with `protox`, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const PROTO: &str = "proto/trunk.proto";
    println!("cargo::rerun-if-changed={PROTO}");
    let descriptors = protox::compile([PROTO], ["proto"])?;
    prost_build::Config::new()
        // Packets ride through as slices of the frame they came in: decoding copies nothing.
        .bytes([".push.trunk.v1.Batch.packets", ".push.trunk.v1.ChatUp.body"])
        .compile_fds(descriptors)?;
    Ok(())
}
