//! What is taken of an operator's folder and what is refused, as tests.

use std::path::PathBuf;

use super::*;
use crate::runtimes::When;

/// A folder that goes away with its test.
struct Folder(PathBuf);

const GOOD: &str = r#"{"base": "alpine", "files": ["tinyfaas", "run"], "entries": ["fn.lua"],
    "install": {"file": "rocks", "when": "lines", "command": ["get", "{cache}"]},
    "process": {"program": "lua", "command": ["{program}", "{folder}/run"], "env": {"A": "b"}}}"#;
const DOCKERFILE: &str = "ARG BASE=alpine\nFROM ${BASE}\n";

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tinyfaas-runtimes-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn add(&self, name: &str, json: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        for (file, text) in [("runtime.json", json), ("Dockerfile", DOCKERFILE), ("run", "")] {
            fs::write(path.join(file), text).unwrap();
        }
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Why a runtime is refused that has this `runtime.json`.
fn refusal(test: &str, json: &str) -> String {
    let folder = Folder::new(test);
    folder.add("lua", json);
    let (found, mut faults) = read(&folder.0).unwrap();
    assert!(found.is_empty(), "{json}");
    let fault = faults.remove(0);
    assert_eq!(fault.runtime, Runtime::parse("lua").ok());
    let (_, why) = fault.text.split_once("/lua: ").unwrap();
    assert_eq!(why.lines().count(), 1, "{why}");
    why.to_owned()
}

#[test]
fn a_folder_is_a_runtime_and_what_lies_beside_it_is_none() {
    let folder = Folder::new("good");
    folder.add("lua", GOOD);
    folder.add(".git", "");
    fs::write(folder.0.join("README"), "").unwrap();
    let (found, faults) = read(&folder.0).unwrap();
    assert_eq!(faults, []);
    let [spec] = &found[..] else { panic!("{found:?}") };
    assert_eq!((spec.runtime.name(), spec.base, spec.entries), ("lua", "alpine", &["fn.lua"][..]));
    let files: Vec<_> = spec.files.iter().map(|file| (file.name, file.mode)).collect();
    assert_eq!(files, [("tinyfaas", 0o755), ("run", 0o644)]);
    assert!(matches!(spec.files[0].content, Content::OwnExecutable));
    let host = spec.host.as_ref().unwrap();
    assert_eq!((host.program, host.command, host.env), ("lua", &["{program}", "{folder}/run"][..], &[("A", "b")][..]));
    let install = spec.dependencies.as_ref().unwrap();
    assert_eq!((install.file, install.when, install.what), ("rocks", When::Lines, "installation of dependencies"));
    assert_eq!(install.command("/c", "/f").collect::<Vec<_>>(), ["get", "/c"]);
}

#[test]
fn what_is_wrong_with_a_description_is_one_line_with_the_field_and_what_would_be_right() {
    for (from, to, why) in [
        (r#""base": "alpine""#, r#""base": "al pine""#, "runtime.json: base: use an image's reference"),
        (r#""base": "alpine", "#, "", "runtime.json: base: use a string of 1 to 1024 bytes"),
        (
            r#""base""#,
            r#""bass""#,
            "runtime.json: \"bass\" is unknown: there are base, files, entries, install, process",
        ),
        (r#"["fn.lua"]"#, "[]", "runtime.json: entries: use a list of 1 to 16 strings"),
        (r#"["fn.lua"]"#, "7", "runtime.json: entries: use a list of 1 to 16 strings"),
        (r#""run"]"#, r#""run", "run"]"#, "runtime.json: files: run is there twice"),
        (r#""run"]"#, r#""../run"]"#, "runtime.json: files: \"../run\" is no file of the folder"),
        (r#""run"]"#, r#""-run"]"#, "runtime.json: files: \"-run\" is no file of the folder"),
        (r#""run"]"#, r#""gone"]"#, "runtime.json: files: gone: No such file"),
        (r#""run"]"#, r#""Dockerfile"]"#, "runtime.json: files: Dockerfile is not for the image"),
        (r#""lines""#, r#""never""#, "runtime.json: install.when: use \"present\", \"lines\" or \"npm\""),
        (r#"["get", "{cache}"]"#, "[]", "runtime.json: install.command: use a list of 1 to 64 strings"),
        (r#""rocks""#, r#""a/b""#, "runtime.json: install.file: \"a/b\" is no file"),
        (r#""program": "lua""#, r#""program": """#, "runtime.json: process.program: use a string of 1 to"),
        (r#""A": "b""#, r#""1": "b""#, "runtime.json: process.env: \"1\" is no name for a variable"),
        (r#""A": "b""#, r#""TINYFAAS_URL": "b""#, "runtime.json: process.env: \"TINYFAAS_URL\" is no name"),
        (r#"}}"#, "}", "runtime.json: EOF while parsing"),
        (r#"{"A": "b"}"#, "7", "runtime.json: process.env: use an object of up to 64 strings"),
        (r#""A": "b""#, r#""A": 7"#, "runtime.json: process.env: A: use a string"),
        (r#""process": {"#, r#""process": 1, "x": {"#, "runtime.json: \"x\" is unknown"),
        (r#""program": "lua", "#, "", "runtime.json: process.program: use a string"),
        (
            r#""file": "rocks""#,
            r#""flie": "rocks""#,
            "runtime.json: install.\"flie\" is unknown: there are file, when, command, what",
        ),
        (r#"["{program}", "{folder}/run"]"#, r#"[""]"#, "runtime.json: process.command: use words"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let refused = refusal("wrong", &GOOD.replacen(from, to, 1));
        assert!(refused.starts_with(why), "{refused}\n{why}");
    }
    let many: Vec<_> = (0..100).map(|n| format!("f{n}")).collect();
    assert!(
        refusal("many", &GOOD.replace(r#"["fn.lua"]"#, &format!("{many:?}")))
            .contains("entries: use a list of 1 to 16")
    );
    let large = format!("{GOOD}{}", " ".repeat(MAX_TEXT as usize));
    assert_eq!(refusal("large", &large), "runtime.json: it is larger than 16384 bytes");
    let long = GOOD.replace("alpine", &"a".repeat(2000));
    assert!(refusal("long", &long).starts_with("runtime.json: base: use"));
}

#[test]
fn each_folder_that_is_wrong_is_told_and_the_others_are_taken() {
    let folder = Folder::new("mixed");
    folder.add("good", GOOD);
    folder.add("python3", GOOD);
    folder.add("image", GOOD);
    folder.add("Lua", GOOD);
    fs::remove_file(folder.add("nodocker", GOOD).join("Dockerfile")).unwrap();
    fs::write(folder.add("nobase", GOOD).join("Dockerfile"), "FROM alpine\n").unwrap();
    fs::create_dir(folder.0.join("empty")).unwrap();
    let (found, faults) = read(&folder.0).unwrap();
    assert_eq!(found.iter().map(|spec| spec.runtime.name()).collect::<Vec<_>>(), ["good"]);
    for (fault, why) in faults.iter().zip([
        "Lua: \"Lua\" is no env: use one such as python3",
        "empty: runtime.json: No such file",
        "image: image is part of the program: give the folder another name",
        "nobase: Dockerfile: has no line ARG BASE",
        "nodocker: Dockerfile: No such file",
        "python3: python3 is part of the program: give the folder another name",
    ]) {
        assert!(fault.text.contains(why), "{} {why}", fault.text);
    }
    assert_eq!(faults.len(), 6);
    assert_eq!(faults[0].runtime, None);
    assert!(load(&folder.0.join("nowhere")).unwrap_err().starts_with("--runtimes: cannot read "));
}

#[test]
fn the_runtime_of_the_documentation_is_one() {
    let text = include_str!("../../docs/runtimes.md");
    let (json, rest) = text.split_once("runtimes/lua/runtime.json\n").unwrap().1.split_once("\n\n").unwrap();
    let dockerfile = rest.split_once("runtimes/lua/Dockerfile\n").unwrap().1.split_once("```").unwrap().0;
    let folder = Folder::new("documented");
    fs::write(folder.add("lua", json).join("Dockerfile"), dockerfile).unwrap();
    let (found, faults) = read(&folder.0).unwrap();
    assert_eq!((found.len(), faults), (1, Vec::new()));
    // The fields that it names are those that there are.
    for field in ["base", "files", "entries", "install", "process"] {
        assert!(text.contains(&format!("\n| `{field}` | ")), "{field}");
    }
    assert_eq!(text.matches("\n| `").count(), 5);
}
