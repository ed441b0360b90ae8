//! jsr, by a small registry on loopback.

use serde_json::json;

use crate::registry::Registry;
use crate::support::{Bed, import, list, work};

#[tokio::test(flavor = "multi_thread")]
async fn packages_of_jsr_work_offline_with_all_their_subpaths() {
    let registry = Registry::start().await;
    registry.publish("left", "1.0.0", &[], "module.exports = 'left'");
    registry.publish_jsr(
        "@t/dep",
        "1.1.0",
        &json!("./mod.ts"),
        &[("mod.ts", "export const dep: string = 'dep';")],
    );
    let files = [
        (
            "mod.ts",
            "import { dep } from 'jsr:@t/dep@^1'; import left from 'npm:left@^1'; export const all: string = dep + left;",
        ),
        ("posix/mod.ts", "export const join = (...parts: string[]): string => parts.join('/');"),
    ];
    registry.publish_jsr("@t/path", "1.2.0", &json!({".": "./mod.ts", "./posix": "./posix/mod.ts"}), &files);
    let bed = Bed::with(registry.environment(), |_| {});
    let listed = "jsr:@t/path@^1";
    let layer = bed.ensure(listed).await.unwrap();
    drop(registry);
    let spell = |written: &str| layer.spell(&list(listed).judge(written).unwrap());
    assert_eq!(spell("@t/path").unwrap(), "jsr:@t/path@^1");
    assert_eq!(spell("jsr:@t/path@1.2/posix").unwrap(), "jsr:@t/path@^1/posix");
    let refusal = spell("@t/path/posyx").unwrap_err();
    assert_eq!(refusal.hint.as_deref(), Some("write `jsr:@t/path/posix`"), "{refusal}");
    assert_eq!(work(&layer, "import { all } from 'jsr:@t/path@^1'; console.log(all)"), "depleft");
    let code = "console.log((await import('jsr:@t/path@^1/posix')).join('a', 'b'))";
    assert_eq!(work(&layer, code), "a/b");
    for other in ["jsr:@t/dep", "npm:left", "jsr:@t/path", "jsr:@t/dep@^1.1"] {
        let answer = import(&layer, other);
        assert!(
            answer.contains("lockfile is out of date") || answer.contains("--cached-only"),
            "{other}: {answer}"
        );
    }
    let why = layer.why("npm:left");
    assert_eq!(why, [["jsr:@t/path@1.2.0".to_owned(), "npm:left@1.0.0".to_owned()]]);
    assert!(layer.allow_import().unwrap().starts_with("127.0.0.1:"));
}
