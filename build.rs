//! With the feature `cuda` on x86-64 Linux: makes the archives that stand in for CUDA's libraries when the program is
//! linked, so that one program starts on machines with and without CUDA (cuda/lazy.c). candle links those libraries as
//! ordinary shared ones, which the loader would insist on; as this package's search path comes before that of its
//! dependencies, `-lcuda` and the others find the archives first. Elsewhere, and without the feature, nothing is done.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A library: its name to the linker, its file for CUDA `{}`, what a call returns where it is missing, and whether it
/// is missing on most machines.
const LIBRARIES: [(&str, &str, u32, bool); 6] = [
    ("cuda", "libcuda.so.1", 100, true),         // CUDA_ERROR_NO_DEVICE
    ("cublas", "libcublas.so.{}", 1, false),     // CUBLAS_STATUS_NOT_INITIALIZED
    ("cublasLt", "libcublasLt.so.{}", 1, false), // CUBLAS_STATUS_NOT_INITIALIZED
    ("curand", "libcurand.so.10", 101, false),   // CURAND_STATUS_NOT_INITIALIZED
    ("cudnn", "libcudnn.so.9", 1001, false),     // CUDNN_STATUS_NOT_INITIALIZED
    ("nvrtc", "libnvrtc.so.{}", 11, false),      // NVRTC_ERROR_INTERNAL_ERROR
];

/// Where users say that CUDA is; cudarc's list.
const ROOTS: [&str; 4] = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if env::var_os("CARGO_FEATURE_CUDA").is_none()
        || !is("CARGO_CFG_TARGET_OS", "linux")
        || !is("CARGO_CFG_TARGET_ARCH", "x86_64")
    {
        return;
    }
    println!("cargo:rerun-if-changed=cuda");
    for name in ROOTS.iter().chain(&["NVCC", "CUDARC_CUDA_VERSION"]) {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let major = cuda_major();
    for (name, file, status, quiet) in LIBRARIES {
        archive(&out, name, &file.replace("{}", &major), status, quiet);
    }
    match static_runtime() {
        // It loads the driver itself, when it is first called.
        Some(found) => drop(fs::copy(&found, out.join("libcudart.a")).expect("libcudart_static.a can be copied")),
        None => println!(
            "cargo:warning=no libcudart_static.a in $CUDA_HOME, beside nvcc or in /usr/local/cuda: the program will need \
             libcudart.so wherever it runs"
        ),
    }
    println!("cargo:rustc-link-search=native={}", out.display());
}

/// Makes `lib{name}.a` in a folder.
fn archive(out: &Path, name: &str, file: &str, status: u32, quiet: bool) {
    let list = fs::read_to_string(format!("cuda/functions/{name}.txt")).expect("the list of functions can be read");
    let functions: Vec<&str> = list.lines().collect();
    let entries = out.join(format!("{name}.s"));
    fs::write(&entries, assembly(name, &functions)).expect("OUT_DIR can be written");
    cc::Build::new()
        .file(entries)
        .file("cuda/lazy.c")
        .define("PREFIX(name)", format!("hpsearch_{name}_##name").as_str())
        .define("FILE_NAME", format!("\"{file}\"").as_str())
        .define("STATUS", status.to_string().as_str())
        .define("QUIET", if quiet { "1" } else { "0" })
        .cargo_metadata(false) // nothing of it is linked unless `-l{name}` asks for it
        .out_dir(out)
        .compile(name);
}

/// The functions' entries, x86-64: each jumps to the address in its slot, which is at first that of code that finds the
/// function. Calls pass through with registers and stack as they were (System V ABI, 3.2.3: integer arguments in rdi, rsi,
/// rdx, rcx, r8, r9, others in xmm0 to xmm7, the count of the latter in al; r11 is free).
fn assembly(name: &str, functions: &[&str]) -> String {
    let own = |what: &str| format!("hpsearch_{name}_{what}");
    let (slots, names, find) = (own("slots"), own("names"), own("find"));
    let mut text = String::from("\t.text\n");
    for (i, function) in functions.iter().enumerate() {
        let slot = 8 * i;
        let _ = writeln!(
            text,
            "\t.globl {function}\n\t.type {function}, @function\n{function}:\n\tendbr64\n\tjmp *{slots}+{slot}(%rip)\n\
             .Lfirst{i}:\n\tendbr64\n\tmovl ${i}, %r11d\n\tjmp .Lfind\n\t.size {function}, .-{function}"
        );
    }
    let integers = ["rdi", "rsi", "rdx", "rcx", "r8", "r9", "rax"];
    text += ".Lfind:\n";
    for register in integers {
        let _ = writeln!(text, "\tpush %{register}");
    }
    // Seven pushes and the return address leave the stack aligned to 16 bytes, as a call wants it.
    text += "\tsub $128, %rsp\n";
    for i in 0..8 {
        let _ = writeln!(text, "\tmovups %xmm{i}, {}(%rsp)", 16 * i);
    }
    let _ = writeln!(text, "\tmovl %r11d, %edi\n\tcall {find}\n\tmovq %rax, %r11");
    for i in 0..8 {
        let _ = writeln!(text, "\tmovups {}(%rsp), %xmm{i}", 16 * i);
    }
    text += "\tadd $128, %rsp\n";
    for register in integers.iter().rev() {
        let _ = writeln!(text, "\tpop %{register}");
    }
    text += "\tjmp *%r11\n";
    let _ = writeln!(text, "\t.data\n\t.balign 8\n\t.globl {slots}\n\t.hidden {slots}\n{slots}:");
    for i in 0..functions.len() {
        let _ = writeln!(text, "\t.quad .Lfirst{i}");
    }
    let _ =
        writeln!(text, "\t.section .data.rel.ro, \"aw\"\n\t.balign 8\n\t.globl {names}\n\t.hidden {names}\n{names}:");
    for i in 0..functions.len() {
        let _ = writeln!(text, "\t.quad .Lname{i}");
    }
    text += "\t.section .rodata\n";
    for (i, function) in functions.iter().enumerate() {
        let _ = writeln!(text, ".Lname{i}:\t.asciz \"{function}\"");
    }
    text + "\t.section .note.GNU-stack, \"\", @progbits\n"
}

/// The major version of CUDA that the kernels are compiled with, as cudarc finds it.
fn cuda_major() -> String {
    if let Ok(version) = env::var("CUDARC_CUDA_VERSION") {
        return version.chars().take(2).collect();
    }
    let output = Command::new(nvcc()).arg("--version").output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let version = said.split("release ").nth(1).and_then(|rest| rest.split('.').next());
    version.map(str::to_owned).unwrap_or_else(|| panic!("`nvcc --version` says no version; put nvcc on the path"))
}

fn nvcc() -> PathBuf {
    env::var_os("NVCC").map_or_else(|| "nvcc".into(), PathBuf::from)
}

/// The runtime library as an archive.
fn static_runtime() -> Option<PathBuf> {
    let roots = ROOTS.iter().filter_map(env::var_os).map(PathBuf::from);
    let on_path = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let compilers = [nvcc()].into_iter().chain(on_path.into_iter().map(|folder| folder.join("nvcc")));
    let beside = compilers.filter_map(|nvcc| Some(nvcc.canonicalize().ok()?.parent()?.parent()?.to_owned()));
    let usual = ["/usr/local/cuda", "/opt/cuda", "/usr"].map(PathBuf::from);
    let folders = ["lib64", "lib", "targets/x86_64-linux/lib", "lib/x86_64-linux-gnu"];
    roots
        .chain(beside)
        .chain(usual)
        .flat_map(|root| folders.map(|folder| root.join(folder).join("libcudart_static.a")))
        .find(|file| file.is_file())
}
