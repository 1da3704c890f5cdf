fn main() -> std::process::ExitCode {
    hpsearch::cli::main()
}
