//! What `upload_request` takes and refuses, as tests.

use super::*;

pub(super) fn defaults() -> Defaults {
    let limits = Limits {
        memory: 1 << 27,
        cpu_millis: 0,
        pids: 64,
        timeout: Duration::from_secs(60),
        concurrency: 4,
        queue: 100,
    };
    Defaults { limits, idle: None, network: true }
}

/// A good body with one field replaced by `value`, or left out.
fn body(field: &str, value: Option<&str>) -> String {
    let mut fields = vec![("name", "\"sieve\""), ("env", "\"python3\""), ("threads", "2")];
    fields.retain(|(name, _)| *name != field);
    fields.extend(value.map(|value| (field, value)));
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn with(field: &str, value: &str) -> Result<Deploy, String> {
    upload(&body(field, Some(value)), Some(1), &defaults())
}

#[test]
fn what_the_go_clients_send_is_understood() {
    let text = r#"{"name":"sieve","env":"nodejs","threads":4,"zip":"","envs":null,"extra":{"a":[1]}}"#;
    let deploy = upload(text, Some(1), &defaults()).unwrap();
    assert_eq!((deploy.name.as_str(), deploy.runtime, deploy.threads), ("sieve", Runtime::NODEJS, 4));
    assert_eq!((deploy.envs.len(), deploy.limits, deploy.subfolder.as_str()), (0, defaults().limits, ""));

    let text = r#"{"name":"a","env":"python3","threads":1,"url":"https://h/main.zip","subfolder_path":"/x/y/",
                   "envs":["A=1","B=x=y","_c="]}"#;
    let (deploy, url) = upload_url(text, &defaults()).unwrap();
    assert_eq!((url.host.as_str(), url.target.as_str()), ("h", "/main.zip"));
    assert_eq!((deploy.subfolder.as_str(), deploy.envs), ("x/y", vec!["A=1".into(), "B=x=y".into(), "_c=".into()]));

    assert_eq!(delete(r#"{"name":"a","zip":"x"}"#).unwrap().as_str(), "a");
}

#[test]
fn each_missing_or_mistyped_field_is_named_with_what_it_should_be() {
    for (field, value, want) in [
        ("name", None, "name is missing: it has to be 1 to 63 ASCII letters and digits"),
        ("name", Some("null"), "name is missing: it has to be 1 to 63 ASCII letters and digits"),
        ("name", Some("7"), "name has to be a string: 1 to 63 ASCII letters and digits"),
        ("name", Some("\"a-b\""), "name: bad function name \"a-b\": use 1 to 63 ASCII letters and digits"),
        ("env", None, "env is missing: it has to be python3, nodejs, binary, go or image"),
        ("env", Some("[]"), "env has to be a string: python3, nodejs, binary, go or image"),
        ("env", Some("\"ruby\""), "env: unknown env \"ruby\": use python3, nodejs, binary, go or image"),
        ("threads", None, "threads is missing: it has to be a number from 1 to 64"),
        ("threads", Some("\"2\""), "threads has to be a whole number from 1 to 64"),
        ("threads", Some("0"), "threads has to be a whole number from 1 to 64"),
        ("threads", Some("65"), "threads has to be a whole number from 1 to 64"),
        ("threads", Some("-1"), "threads has to be a whole number from 1 to 64"),
        ("threads", Some("1.5"), "threads has to be a whole number from 1 to 64"),
        ("threads", Some("1e400"), "not the JSON that was expected: number out of range"),
        ("threads", Some("99999999999999999999"), "threads has to be a whole number from 1 to 64"),
        ("threads", Some("true"), "threads has to be a whole number from 1 to 64"),
        ("subfolder_path", Some("1"), "subfolder_path has to be a string: a folder of the archive"),
        ("subfolder_path", Some("\"../x\""), "subfolder_path: the name leads out of the archive (..)"),
        ("envs", Some("\"A=1\""), "envs has to be a list of strings KEY=VALUE"),
        ("envs", Some("{\"A\":\"1\"}"), "envs has to be a list of strings KEY=VALUE"),
        ("limits", Some("\"64Mi\""), "limits has to be an object such as {\"memory\":\"64Mi\"}"),
        ("auth", Some("\"x\""), "auth has to be a list of the SHA-256 of tokens, in hexadecimal"),
        ("auth", Some("[1]"), "auth[0] has to be a string"),
        (
            "auth",
            Some("[\"tinyfaas_secret\"]"),
            "auth[0]: no SHA-256 of a token: use 64 hexadecimal digits (tinyfaas token new makes one)",
        ),
        ("idle", Some("5"), "idle has to be a string such as \"5m\", or \"off\""),
        (
            "idle",
            Some("\"5\""),
            "idle: \"5\" is no length of time: use a number over 0 with ms, s, m or h, such as 30s, or off",
        ),
        ("idle", Some("\"10ms\""), "idle: \"10ms\" is too short: use 1s or more, or off"),
        ("limits", Some("[]"), "limits has to be an object such as {\"memory\":\"64Mi\"}"),
    ] {
        let error = upload(&body(field, value), Some(1), &defaults()).unwrap_err();
        assert_eq!(error, want, "{field} {value:?}");
    }
    assert!(with("threads", "64").is_ok());
    assert_eq!(upload(&body("", None), None, &defaults()).unwrap_err(), "zip is missing: send the archive in base64");
    assert_eq!(upload(&body("", None), Some(0), &defaults()).unwrap_err(), "zip is empty: send the archive in base64");
    let url = |value| upload_url(&body("url", value), &defaults()).map(|_| ()).unwrap_err();
    assert!(url(None).starts_with("url is missing: "));
    assert_eq!(url(Some("1")), "url has to be a string");
    assert_eq!(url(Some("\"ftp://x\"")), "url: the URL has to begin with http:// or https://");
    assert!(delete("{}").unwrap_err().starts_with("name is missing"));
}

#[test]
fn the_bounds_of_each_field_are_taken_and_what_is_beyond_is_refused() {
    let long = |n: usize| format!("\"{}\"", "a".repeat(n));
    let folder = |n: usize| format!("\"{}\"", "a/".repeat(n));
    let limit = |name: &str, value: &str| ("limits", format!("{{\"{name}\":{value}}}"));
    for (field, value) in [
        ("name", long(1)),
        ("name", long(63)),
        ("name", "\"0\"".into()),
        ("threads", "1".into()),
        ("threads", "64".into()),
        ("subfolder_path", folder(64)),
        ("idle", "\"1s\"".into()),
        ("idle", "\"8760h\"".into()),
        limit("memory", "6291456"),
        limit("memory", "18446744073709551615"),
        limit("cpu", "1024"),
        limit("cpu", "\"1m\""),
        limit("pids", "1"),
        limit("pids", "32768"),
        limit("timeout", "\"1ms\""),
        limit("timeout", "\"24h\""),
        limit("concurrency", "1"),
        limit("concurrency", "4096"),
        limit("queue", "0"),
        limit("queue", "65536"),
    ] {
        assert!(with(field, &value).is_ok(), "{field} {value}: {:?}", with(field, &value));
    }
    for (field, value) in [
        ("name", long(0)),
        ("name", long(64)),
        ("name", "\"\\u00e4\"".into()),
        ("name", "\"\\uff21\"".into()),
        ("name", "\"a\\u0000\"".into()),
        ("name", "\"..\"".into()),
        ("name", "\"a b\"".into()),
        ("env", "\"Python3\"".into()),
        ("env", "\"python3 \"".into()),
        ("threads", "0".into()),
        ("threads", "65".into()),
        ("threads", "18446744073709551616".into()),
        ("threads", "1.0".into()),
        ("subfolder_path", folder(65)),
        ("subfolder_path", "\"a\\u0000\"".into()),
        ("subfolder_path", "\"a\\\\b\"".into()),
        ("idle", "\"999ms\"".into()),
        ("idle", "\"8761h\"".into()),
        limit("memory", "6291455"),
        limit("memory", "18446744073709551616"),
        limit("memory", "\"17179869184Gi\""),
        limit("cpu", "1025"),
        limit("pids", "32769"),
        limit("timeout", "\"86400001ms\""),
        limit("timeout", "\"0ms\""),
        limit("concurrency", "4097"),
        limit("queue", "65537"),
    ] {
        let error = with(field, &value).unwrap_err();
        assert!(error.starts_with(field) && !error.contains('\n') && error.len() < 200, "{field} {value}: {error}");
    }
}

#[test]
fn a_field_that_is_there_twice_is_refused() {
    let error = upload(r#"{"name":"a","env":"python3","threads":1,"name":"b"}"#, Some(1), &defaults()).unwrap_err();
    assert_eq!(error, "not the JSON that was expected: duplicate field `name`");
    assert_eq!(with("limits", r#"{"pids":1,"pids":2}"#).unwrap_err(), "limits.pids is there twice");
}

#[test]
fn wrong_values_are_repeated_only_in_part() {
    let long = format!("\"{}\"", "x".repeat(10_000));
    for field in ["name", "env", "subfolder_path"] {
        assert!(with(field, &long).unwrap_err().len() < 200, "{field}");
    }
    assert!(with("limits", &format!("{{{long}:1}}")).unwrap_err().len() < 200);
    assert!(with("limits", &format!("{{\"memory\":{long}}}")).unwrap_err().len() < 200);
}

#[test]
fn environment_variables_are_checked_and_their_values_never_repeated() {
    for (envs, want) in [
        (r#"["A=1", 5]"#, "envs[1] has to be a string KEY=VALUE"),
        (r#"["A=1", ["s3cret"]]"#, "envs[1] has to be a string KEY=VALUE"),
        (r#"["s3cret"]"#, "envs[0] has no =: write KEY=VALUE"),
        (
            r#"["=s3cret"]"#,
            "envs[0] has a wrong key: use letters, digits and _, not a digit first, then = and the value",
        ),
        (
            r#"["1A=s3cret"]"#,
            "envs[0] has a wrong key: use letters, digits and _, not a digit first, then = and the value",
        ),
        (
            r#"["s3 cret=x"]"#,
            "envs[0] has a wrong key: use letters, digits and _, not a digit first, then = and the value",
        ),
        (r#"["A=s3cret\u0000"]"#, "envs[0] (A) holds a NUL byte, which no environment variable can"),
        (r#"["A=s3cret","A=other"]"#, "envs[1] (A) is there twice"),
        (
            r#"["TINYFAAS_SOCKET=s3cret"]"#,
            "envs[0] (TINYFAAS_SOCKET) begins with TINYFAAS_: such names are tinyFaaS's own",
        ),
    ] {
        assert_eq!(with("envs", envs).unwrap_err(), want, "{envs}");
    }
    assert!(!with("envs", "\"s3cret\"").unwrap_err().contains("s3cret"));
    assert!(!with("limits", r#"{"memory":["s3cret"]}"#).unwrap_err().contains("s3cret"));
    assert!(with("envs", r#"["tinyfaas_x=1","A=","B=ü\n"]"#).is_ok());
    let sized = |n: usize| format!("[\"A={}\"]", "x".repeat(n));
    assert!(with("envs", &sized(MAX_ENV_BYTES - 3)).is_ok());
    assert!(with("envs", &sized(MAX_ENV_BYTES - 2)).unwrap_err().contains("larger than 32768 bytes"));
    let many = |n: usize| format!("[{}]", (0..n).map(|n| format!("\"A{n}=\"")).collect::<Vec<_>>().join(","));
    assert!(with("envs", &many(MAX_ENVS)).is_ok());
    assert!(with("envs", &many(MAX_ENVS + 1)).unwrap_err().contains("more than 512"));
}

#[test]
fn limits_replace_the_defaults_one_by_one() {
    let all = r#"{"memory":"64Mi","cpu":"500m","pids":32,"timeout":"30s","concurrency":8,"queue":0}"#;
    assert_eq!(
        with("limits", all).unwrap().limits,
        Limits {
            memory: 64 << 20,
            cpu_millis: 500,
            pids: 32,
            timeout: Duration::from_secs(30),
            concurrency: 8,
            queue: 0
        }
    );
    assert_eq!(with("limits", r#"{"pids":1,"cpu":null}"#).unwrap().limits, Limits { pids: 1, ..defaults().limits });
    let limits = with("limits", r#"{"memory":67108864,"cpu":2}"#).unwrap().limits;
    assert_eq!((limits.memory, limits.cpu_millis), (64 << 20, 2000));
    let limits = with("limits", r#"{"pids":"32","queue":"0"}"#).unwrap().limits;
    assert_eq!((limits.pids, limits.queue), (32, 0));
    assert_eq!(with("limits", r#"{"memory":0}"#).unwrap().limits.memory, 0);
}

#[test]
fn idle_is_a_time_or_off_whatever_the_default_is() {
    let minute = Some(Duration::from_secs(60));
    let on = Defaults { idle: minute, ..defaults() };
    assert_eq!(with("idle", "\"60s\"").unwrap().idle, minute);
    assert_eq!(with("idle", "null").unwrap().idle, None);
    let idle = |value| upload(&body("idle", value), Some(1), &on).unwrap().idle;
    assert_eq!((idle(None), idle(Some("null")), idle(Some("\"off\""))), (minute, minute, None));
}

#[test]
fn network_is_true_or_false_and_the_operator_may_give_none() {
    let network = |value| with("network", value).unwrap().network;
    assert_eq!((network("false"), network("true"), network("null")), (false, true, true));
    for wrong in ["0", "\"false\"", "[]", "{}"] {
        assert_eq!(with("network", wrong).unwrap_err(), "network has to be true or false", "{wrong}");
    }
    let none = Defaults { network: false, ..defaults() };
    let network = |value| upload(&body("network", value), Some(1), &none).map(|deploy| deploy.network);
    assert_eq!((network(None), network(Some("false"))), (Ok(false), Ok(false)));
    assert!(network(Some("true")).unwrap_err().contains("--network none"));
}

#[test]
fn wrong_limits_are_named_with_what_they_should_be() {
    for (limits, want) in [
        (
            r#"{"memroy":"64Mi"}"#,
            "limits.\"memroy\" is unknown: there are memory, cpu, pids, timeout, concurrency, queue",
        ),
        (r#"{"memory":"1Mi"}"#, "limits.memory: \"1Mi\" is too little: use 6Mi or more, or 0 for no limit"),
        (r#"{"memory":true}"#, "limits.memory: has to be a size such as \"64Mi\""),
        (r#"{"timeout":30}"#, "limits.timeout: has to be a string such as \"30s\""),
        (r#"{"timeout":"25h"}"#, "limits.timeout: \"25h\" is too long: use 24h or less"),
        (r#"{"pids":0}"#, "limits.pids: \"0\" is out of range: use a whole number from 1 to 32768"),
        (r#"{"pids":"+32"}"#, "limits.pids: \"+32\" is out of range: use a whole number from 1 to 32768"),
        (r#"{"concurrency":0}"#, "limits.concurrency: \"0\" is out of range: use a whole number from 1 to 4096"),
        (r#"{"queue":-1}"#, "limits.queue: has to be a whole number such as 8"),
        (r#"{"queue":65537}"#, "limits.queue: \"65537\" is out of range: use a whole number from 0 to 65536"),
    ] {
        assert_eq!(with("limits", limits).unwrap_err(), want);
    }
    for limits in
        [r#"{"memory":"64MB"}"#, r#"{"memory":-1}"#, r#"{"cpu":"0.5"}"#, r#"{"cpu":0.5}"#, r#"{"timeout":"0s"}"#]
    {
        assert!(with("limits", limits).unwrap_err().contains("such as"), "{limits}");
    }
}

#[test]
fn auth_is_a_list_of_digests_or_nothing() {
    let digest = Digest::of("t").to_string();
    let auth = |value: &str| with("auth", value).unwrap().auth;
    assert_eq!(auth(&format!("[\"{digest}\"]")), [Digest::of("t")]);
    assert_eq!((auth("[]"), auth("null")), (vec![], vec![]));
    let many = vec![format!("\"{digest}\""); MAX_AUTH + 1].join(",");
    assert_eq!(with("auth", &format!("[{many}]")).unwrap_err(), "auth has more than 64 entries");
}
