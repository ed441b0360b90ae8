fn main() -> std::process::ExitCode {
    conductor_client::ctl::main_impl().into()
}
