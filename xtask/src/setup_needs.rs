//! What this machine must have: what for, how to see that it is there, which package brings it.
//!
//! A table and nothing else; `setup` acts on it.

use crate::ebpf_toolchain::{self, find_program};

/// Who needs something.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Purpose {
    /// Compiling the daemons
    Build,
    /// `cargo xtask run`
    Run,
    /// `cargo xtask test`, which includes what `run` needs
    Test,
    /// `cargo xtask test --vm`, which includes it as well
    Vm,
    /// `cargo xtask bench --kernel`, as above
    BenchKernel,
}

impl Purpose {
    /// Whether what is needed for `part` is needed for this.
    pub(crate) fn includes(self, part: Self) -> bool {
        part == self
            || match self {
                Self::Build => false,
                Self::Run => part == Self::Build,
                Self::Test | Self::Vm | Self::BenchKernel => Self::Run.includes(part),
            }
    }
}

/// How something missing comes here.
pub(crate) enum Way {
    /// Debian packages.
    Apt(&'static [&'static str]),
    /// A compiler for the kernel's target: rustup's when rustup is here, else the distribution's.
    KernelCompiler,
    /// bpf-linker, compiled against the LLVM that the compiler brings.
    Linker,
}

/// One thing that must be there.
pub(crate) struct Need {
    pub(crate) name: &'static str,
    pub(crate) what_for: &'static str,
    pub(crate) purpose: Purpose,
    pub(crate) is_there: fn() -> bool,
    pub(crate) way: Way,
}

/// In the order in which they are got: the linker is built for the compiler's LLVM, packages come before both.
pub(crate) const NEEDS: [Need; 12] = [
    Need {
        name: "a C compiler",
        what_for: "linking whatever cargo builds",
        purpose: Purpose::Build,
        is_there: || find_program("cc").is_some(),
        way: Way::Apt(&["gcc", "libc6-dev"]),
    },
    Need {
        name: "iproute2",
        what_for: "the namespaces and veth pairs that the filter is shown and tested on",
        purpose: Purpose::Run,
        is_there: || find_program("ip").is_some(),
        way: Way::Apt(&["iproute2"]),
    },
    Need {
        name: "rustc with core's sources",
        what_for: "compiling the eBPF programs, whose target has no prebuilt core",
        purpose: Purpose::Run,
        is_there: || ebpf_toolchain::find().is_ok(),
        way: Way::KernelCompiler,
    },
    Need {
        name: "bpf-linker",
        what_for: "linking the eBPF programs",
        purpose: Purpose::Run,
        is_there: || ebpf_toolchain::find_linker().is_ok(),
        way: Way::Linker,
    },
    Need {
        name: "chromium, chromium-driver",
        what_for: "the test that opens the live page in a real browser",
        purpose: Purpose::Test,
        is_there: || find_program("chromium").is_some() && find_program("chromedriver").is_some(),
        way: Way::Apt(&["chromium", "chromium-driver", "fonts-dejavu-core"]),
    },
    Need {
        name: "node",
        what_for: "the test with a real Bilibili client library",
        purpose: Purpose::Test,
        is_there: || find_program("node").is_some(),
        way: Way::Apt(&["nodejs"]),
    },
    Need {
        name: "npm",
        what_for: "fetching that library",
        purpose: Purpose::Test,
        is_there: || find_program("npm").is_some(),
        way: Way::Apt(&["npm"]),
    },
    Need {
        name: "systemd-analyze",
        what_for: "the test that verifies the units",
        purpose: Purpose::Test,
        is_there: || find_program("systemd-analyze").is_some(),
        way: Way::Apt(&["systemd"]),
    },
    Need {
        name: "bpftool",
        what_for: "the test that takes over the pins of an earlier version, which it makes",
        purpose: Purpose::Test,
        is_there: || find_program("bpftool").is_some(),
        way: Way::Apt(&["bpftool"]),
    },
    Need {
        name: "qemu-system-x86",
        what_for: "the emulated machine that runs the tests on Debian's kernel",
        purpose: Purpose::Vm,
        is_there: || find_program("qemu-system-x86_64").is_some(),
        way: Way::Apt(&["qemu-system-x86"]),
    },
    Need {
        name: "busybox",
        what_for: "the shell in that machine",
        purpose: Purpose::Vm,
        is_there: || find_program("busybox").is_some(),
        way: Way::Apt(&["busybox-static"]),
    },
    Need {
        name: "xdp-filter",
        what_for: "the program that the bench compares the filter with",
        purpose: Purpose::BenchKernel,
        is_there: || find_program("xdp-filter").is_some(),
        way: Way::Apt(&["xdp-tools"]),
    },
];
