//! The rules for the file of settings, as tests.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::Listen;

/// A file of settings that goes away with the test.
struct Temp(PathBuf);

impl Temp {
    fn new(text: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let temp = Self(std::env::temp_dir().join(format!("tinyfaas-settings-{}-{n}.json", std::process::id())));
        temp.write(text);
        temp
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    fn layers(&self, flags: &[&str], env: &[(&str, &str)]) -> Layers {
        let file = self.0.to_str().unwrap();
        let args: Vec<String> =
            ["--config", file, "--state-dir", "/s"].iter().chain(flags).map(|s| (*s).into()).collect();
        Layers::new(&args, Some(self.0.clone()), &|name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()))
            .unwrap()
    }

    fn read(&self) -> Result<Config, String> {
        self.layers(&[], &[]).read().map(|c| c.config)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn config(file: &str, flags: &[&str], env: &[(&str, &str)]) -> Config {
    Temp::new(file).layers(flags, env).read().unwrap().config
}

fn refusal(file: &str) -> String {
    let temp = Temp::new(file);
    let error = temp.read().unwrap_err();
    assert_eq!(error.lines().count(), 1, "{error}");
    error.replace(temp.0.to_str().unwrap(), "FILE")
}

#[test]
fn a_flag_wins_over_the_environment_which_wins_over_the_file_which_wins_over_the_default() {
    let file = r#"{"http": 1, "backend": "docker", "queue": 5, "read-only": true, "runtime-image": ["nodejs=a"]}"#;
    let at = |port| Listen::everywhere(port);
    assert_eq!(config("{}", &[], &[]).http, at(8000));
    assert_eq!(config(file, &[], &[]).http, at(1));
    assert_eq!(config(file, &[], &[("HTTP_PORT", "2")]).http, at(2));
    assert_eq!(config(file, &["--http", "3"], &[("HTTP_PORT", "2")]).http, at(3));
    let both = config(file, &["--runtime-image", "nodejs=b"], &[]);
    assert_eq!((both.queue, both.read_only, both.runtime_image.len()), (5, true, 1));
    assert_eq!(both.runtime_image[0].image, "b");
}

#[test]
fn every_flag_of_serve_can_be_in_the_file() {
    let flags = Config::get_args_info();
    let names: Vec<&str> = flags.flags.iter().filter_map(|f| f.long.strip_prefix("--")).collect();
    assert!(names.len() > 50 && names.contains(&"keep-handlers"));
    for flag in flags.flags {
        let name = flag.long.strip_prefix("--").unwrap();
        if ["config", "help"].contains(&name) {
            continue;
        }
        let FlagInfoKind::Option { arg_name } = flag.kind else {
            assert_eq!(means_entry(name, "false"), Ok(parse(&[]).unwrap()), "{name}");
            assert_ne!(means_entry(name, "true"), Ok(parse(&[]).unwrap()), "{name}");
            continue;
        };
        let value = match (name, arg_name) {
            ("backend", _) => "process",
            ("reach", _) => "tcp",
            ("network", _) => "none",
            ("docker-host", _) => "unix:///x",
            (_, "ADDR") => "127.0.0.1:77",
            (_, "ENV=IMAGE") => "nodejs=x",
            (_, "LEVEL") => "debug",
            ("log-format", _) => "json",
            (_, "TIME") => "77s",
            (_, "SIZE") => "77Mi",
            (_, "N" | "CORES") => "77",
            (_, "UID") => "7777",
            (_, "PATH") => "/x:ro",
            (_, "HOST" | "DIR" | "FILE") => "x",
            (_, "DOORS") => "http",
            other => panic!("a new kind of flag: {other:?}"),
        };
        let by_flag = parse(&[flag.long.into(), value.into()]).unwrap();
        assert_ne!(by_flag, parse(&[]).unwrap(), "{name}");
        assert_eq!(means_entry(name, &format!("{value:?}")), Ok(by_flag), "{name}");
    }
    for live in LIVE {
        assert!(names.contains(&live), "{live}");
    }
}

/// What an entry of the file is taken for.
fn means_entry(key: &str, value: &str) -> Result<Config, String> {
    parse(&read_settings(&format!("{{{key:?}: {value}}}"))?.remove(0).args)
}

#[test]
fn what_is_wrong_is_one_line_with_the_file_the_line_and_the_name() {
    assert_eq!(
        refusal("{\n\"timeot\": \"5s\"}"),
        "FILE: line 2: timeot is no setting: they have the names of serve's flags (is it timeout?)"
    );
    assert!(refusal(r#"{"colour": "red"}"#).ends_with("(tinyfaas serve --help lists them)"));
    assert!(refusal(r#"{"a\nb": "red"}"#).starts_with(r"FILE: line 1: a\nb is no setting"));
    assert!(refusal(r#"{"max_upload": "1Mi"}"#).ends_with("(is it max-upload?)"));
    let timeout = refusal(r#"{"timeout": 60}"#);
    assert!(
        timeout.starts_with("FILE: line 1: timeout with value '60': \"60\" is no length of time: use"),
        "{timeout}"
    );
    assert_eq!(refusal(r#"{"read-only": "yes"}"#), "FILE: line 1: read-only is true or false");
    assert!(refusal(r#"{"queue": true}"#).contains("queue is not true but N"));
    assert!(refusal(r#"{"queue": null}"#).contains("queue is not null but N"));
    assert!(refusal(r#"{"queue": 1.5}"#).contains("queue with value '1.5'"));
    assert!(refusal(r#"{"queue": ["1"]}"#).contains("one value"));
    assert!(refusal(r#"{"runtime-image": ["Perl=x"]}"#).contains("\"Perl\" is no env"));
    assert_eq!(refusal(r#"{"runtime-image": [7]}"#), "FILE: line 1: runtime-image is a list of strings");
    assert!(refusal(r#"{"config": "x"}"#).contains("a file cannot name another"));
    assert!(refusal(r#"{"help": true}"#).contains("no setting"));
    assert_eq!(refusal("{\"queue\": 1,\n\n\"queue\": 2}"), "FILE: line 3: queue is there twice");
    assert!(refusal(r#"{"keep-handlers": true, "backend": "process"}"#).contains("--keep-handlers: processes end"));
    assert!(refusal(&" ".repeat(65_600)).contains("larger than 65536 bytes"));
    let gone = Layers::new(&[], Some("/nowhere".into()), &|_| None).unwrap().read().unwrap_err();
    assert!(gone.contains("cannot read /nowhere: No such file"), "{gone}");
}

#[test]
fn what_is_no_object_of_settings_is_refused_where_it_goes_wrong() {
    assert!(refusal("").starts_with("FILE: line 1: EOF"));
    assert!(refusal("queue = 1").starts_with("FILE: line 1: expected"));
    assert!(refusal("{\"queue\": 1,\n}").starts_with("FILE: line 2: trailing comma"));
    assert!(refusal("{}\n{}").starts_with("FILE: line 2: trailing characters"));
    assert!(refusal("[]").contains("expected an object such as {\"queue\": 128}"));
    assert!(refusal(&"[".repeat(60_000)).contains("expected an object"));
    assert!(refusal(&format!("{{\"queue\": {}", "[".repeat(60_000))).contains("recursion limit"));
}

#[test]
fn reading_again_takes_over_what_can_change_and_names_what_needs_a_restart() {
    let temp = Temp::new(r#"{"timeout": "5s", "queue": 3, "backend": "docker", "memory": "64Mi"}"#);
    let layers = temp.layers(&["--queue", "9"], &[]);
    let before = layers.read().unwrap();
    temp.write("{\"memory\": \"64Mi\",\n\"timeout\": \"5000ms\", \"backend\": \"docker\"}");
    let same = layers.reread(&before.settings).unwrap();
    assert_eq!((same.changed, same.stuck), (vec![], vec![]));
    temp.write(r#"{"timeout": "6s", "queue": 4, "backend": "process", "max-body": "1Mi"}"#);
    let now = layers.reread(&same.now.settings).unwrap();
    assert_eq!(
        (now.changed, now.stuck),
        (vec!["timeout".into(), "memory".into()], vec!["backend".into(), "max-body".into()])
    );
    assert_eq!((now.now.config.timeout.as_secs(), now.now.config.memory, now.now.config.queue), (6, 0, 9));
    assert_eq!((now.now.config.backend, now.now.config.max_body), (before.config.backend, 0));
    // What needs a restart is told each time.
    assert_eq!(layers.reread(&now.now.settings).unwrap().stuck, ["backend", "max-body"]);
    temp.write("{\"timeout\": \"7s\",\n\"backend\": \"k8s\"}");
    assert!(layers.reread(&now.now.settings).unwrap_err().contains("line 2: backend with value 'k8s'"));
}
