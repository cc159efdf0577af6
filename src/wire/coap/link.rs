//! What `GET /.well-known/core` answers: link format (RFC 6690), filtered by the query.

/// The resource type of every function.
pub const RESOURCE_TYPE: &str = "tinyfaas.function";

/// Appends the link of function `name` to `list` where it matches every part of the query.
///
/// `observable` adds the `obs` attribute (RFC 7641 §6).
pub fn push<'a>(list: &mut Vec<u8>, name: &str, observable: bool, query: impl Iterator<Item = &'a [u8]>) {
    if !query.into_iter().all(|part| matches(part, name, observable)) {
        return;
    }
    if !list.is_empty() {
        list.push(b',');
    }
    for part in ["</", name, ">;rt=\"", RESOURCE_TYPE, "\";ct=0;title=\"", name, "\""] {
        list.extend_from_slice(part.as_bytes());
    }
    if observable {
        list.extend_from_slice(b";obs");
    }
}

/// Whether the link passes one `attribute=value` of a query, whose value may end in `*` (RFC 6690 §4.1).
fn matches(part: &[u8], name: &str, observable: bool) -> bool {
    let Some(equals) = part.iter().position(|&b| b == b'=') else { return part == b"obs" && observable };
    let (attribute, value) = (part.get(..equals).unwrap_or_default(), part.get(equals + 1..).unwrap_or_default());
    match attribute {
        b"href" => {
            // A reference may come without its leading slash.
            let value = value.strip_prefix(b"/").unwrap_or(value);
            passes(value, name.as_bytes())
        }
        b"rt" => passes(value, RESOURCE_TYPE.as_bytes()),
        b"ct" => passes(value, b"0"),
        b"title" => passes(value, name.as_bytes()),
        b"obs" => observable && matches!(value, b"" | b"*"),
        _ => false,
    }
}

fn passes(pattern: &[u8], value: &[u8]) -> bool {
    match pattern.strip_suffix(b"*") {
        Some(start) => value.starts_with(start),
        None => value == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &[&str]) -> String {
        let mut bytes = Vec::new();
        for name in ["echo", "echo2", "sieve"] {
            push(&mut bytes, name, true, query.iter().map(|part| part.as_bytes()));
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn links_have_type_format_and_title() {
        assert_eq!(list(&["href=/sieve"]), "</sieve>;rt=\"tinyfaas.function\";ct=0;title=\"sieve\";obs");
    }

    #[test]
    fn the_query_filters_with_wildcards() {
        let count = |query: &[&str]| list(query).matches("rt=").count();
        assert_eq!(count(&[]), 3);
        assert_eq!([count(&["rt=tinyfaas.function"]), count(&["rt=tiny*"]), count(&["rt=temperature"])], [3, 3, 0]);
        assert_eq!(
            [count(&["href=/echo"]), count(&["href=/echo*"]), count(&["href=echo2"]), count(&["href=*"])],
            [1, 2, 1, 3]
        );
        assert_eq!([count(&["ct=0"]), count(&["ct=40"]), count(&["title=s*"]), count(&["obs"])], [3, 0, 1, 3]);
        assert_eq!([count(&["if=x"]), count(&["x"]), count(&["rt=tiny*", "href=/echo2"])], [0, 0, 1]);
    }
}
