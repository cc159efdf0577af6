//! Packs what the server hands out as it is: it takes a sixth of its room in the program, and most clients take it packed.
//! Makes the table of the runtimes that are part of the program from their folders.

use std::fmt::Write as _;
use std::fs;
use std::io::{Error, Result};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

#[path = "src/runtimes/description.rs"]
mod description;

use description::Description;

/// The folders in `runtimes` that are embedded; `go` with the feature of that name.
const RUNTIMES: [&str; 4] = ["python3", "nodejs", "binary", "go"];

/// What the status page is made of: its frame, and what is put in for each empty element of it.
const PAGE: &str = "src/management/page/page.html";
const STYLES: [&str; 1] = ["src/management/page/page.css"];
const SCRIPTS: [&str; 2] = ["src/management/page/page.js", "src/management/page/actions.js"];

fn main() -> Result<()> {
    let out = std::env::var_os("OUT_DIR").ok_or_else(|| Error::other("cargo sets OUT_DIR"))?;
    let out = Path::new(&out);
    runtimes(out)?;
    fs::write(out.join("openapi.json.gz"), packed(read("src/management/openapi.json")?.as_bytes()))?;
    if std::env::var_os("CARGO_FEATURE_PAGE").is_some() {
        let (page, policy) = page()?;
        fs::write(out.join("page.html.gz"), packed(page.as_bytes()))?;
        fs::write(out.join("page.policy"), policy)?;
    }
    Ok(())
}

fn read(file: &str) -> Result<String> {
    println!("cargo::rerun-if-changed={file}");
    fs::read_to_string(file)
}

/// As gzip (RFC 1952). No name and no time: the same bytes from every build.
fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff".to_vec();
    packed.extend(miniz_oxide::deflate::compress_to_vec(bytes, 10));
    packed.extend(crc32fast::hash(bytes).to_le_bytes());
    packed.extend((bytes.len() as u32).to_le_bytes());
    packed
}

/// The status page in one file, and the Content-Security-Policy (W3C CSP 3) that lets a browser run what is in it and nothing
/// else, told by its SHA-256.
fn page() -> Result<(String, String)> {
    let mut page = squeezed(&read(PAGE)?);
    let style = insert(&mut page, "style", &STYLES)?;
    let script = insert(&mut page, "script", &SCRIPTS)?;
    let policy = format!(
        "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    );
    Ok((page, policy))
}

/// Puts files into the empty element of that name; the hash of what is in it then.
fn insert(page: &mut String, element: &str, files: &[&str]) -> Result<String> {
    let mut content = String::new();
    for file in files {
        content += &squeezed(&read(file)?);
    }
    let empty = format!("<{element}></{element}>");
    if page.matches(&empty).count() != 1 || content.contains(&format!("</{element}")) {
        return Err(Error::other(format!("{PAGE} needs {empty} once, and what goes into it may not end it")));
    }
    *page = page.replace(&empty, &format!("<{element}>{content}</{element}>"));
    Ok(format!("'sha256-{}'", STANDARD.encode(Sha256::digest(content.as_bytes()))))
}

/// Without indentation, empty lines, and lines that are comments.
fn squeezed(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Writes `BUILT_IN`, one `Spec` for each runtime.
fn runtimes(out: &Path) -> Result<()> {
    let names = RUNTIMES.into_iter().filter(|name| *name != "go" || std::env::var_os("CARGO_FEATURE_GO").is_some());
    let specs = names.map(spec).collect::<Result<Vec<_>>>()?;
    let (count, specs) = (specs.len(), specs.concat());
    fs::write(out.join("runtimes.rs"), format!("static BUILT_IN: [Spec; {count}] = [\n{specs}];\n"))
}

/// The expression for one runtime. What Rust writes for strings and lists of them, it reads.
fn spec(name: &str) -> Result<String> {
    let folder = Path::new("runtimes").join(name);
    let file = folder.join("runtime.json");
    let wrong = |why: String| Error::other(format!("{}: {why}", file.display()));
    let Description { base, files, entries, install, process } =
        Description::parse(&read(&file.display().to_string())?).map_err(wrong)?;
    // By the manifest's folder, whatever that is: the same text from every checkout.
    let embedded = |file: &str| {
        format!("Content::Bytes(include_bytes!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/runtimes/{name}/{file}\")))")
    };
    let runs = description::runs(&read(&folder.join("Dockerfile").display().to_string())?);
    let dockerfile = embedded("Dockerfile");
    let mut text =
        format!("    Spec {{ runtime: Runtime::literal({name:?}), dockerfile: {dockerfile}, runs: {runs}, files: &[");
    for file in &files {
        let (mode, content) =
            if file == "tinyfaas" { (0o755, "Content::OwnExecutable".into()) } else { (0o644, embedded(file)) };
        // Writing to a String cannot fail.
        let _ = write!(text, "File {{ name: {file:?}, mode: {mode}, content: {content} }}, ");
    }
    let _ = write!(text, "], base: {base:?}, entries: &{entries:?}, dependencies: ");
    match install {
        Some(i) => {
            let (file, when, command, what) = (i.file, i.when, i.command, i.what);
            let _ = write!(
                text,
                "Some(Dependencies {{ file: {file:?}, when: When::{when:?}, install: &{command:?}, what: {what:?} }}), host: "
            );
        }
        None => text.push_str("None, host: "),
    }
    match process {
        Some(p) => {
            let (program, command, env) = (p.program, p.command, p.env);
            let _ = writeln!(text, "Some(Host {{ program: {program:?}, command: &{command:?}, env: &{env:?} }}) }},");
        }
        None => text.push_str("None },\n"),
    }
    Ok(text)
}
