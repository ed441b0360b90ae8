//! The same clients over HTTP.

use conductor_tests::clients::{Inspector, PythonSdk};
use conductor_tests::http::HttpBed;

use crate::{inspector, python};

#[test]
fn the_inspector_in_each_era() {
    let Some(program) = Inspector::fetch() else { return };
    let bed = HttpBed::new("");
    let url = format!("http://{}/mcp", bed.client.address);
    let token = format!("Authorization: Bearer {}", bed.client.token);
    for era in ["legacy", "modern", "auto"] {
        inspector::check(era, |args| {
            let mut command = program.command(&bed.home);
            command.args([
                "--cli",
                &url,
                "--transport",
                "http",
                "--header",
                &token,
                "--format",
                "json",
                "-q",
            ]);
            command.args(args).output().expect("the Inspector starts")
        });
    }
}

#[test]
fn the_python_sdk_in_each_era() {
    let Some(sdk) = PythonSdk::fetch() else { return };
    let bed = HttpBed::new("");
    let mut command = sdk.command(&bed.home, include_str!("python/client.py"));
    command.env("CONDUCTOR_TOKEN", &bed.client.token).arg(format!("http://{}/mcp", bed.client.address));
    python::check_eras(&mut command);
}
