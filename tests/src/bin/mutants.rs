fn main() -> std::process::ExitCode {
    conductor_tests::mutants::main_impl()
}
