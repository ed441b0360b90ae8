fn main() -> std::process::ExitCode {
    conductor_tests::bench::main_impl()
}
