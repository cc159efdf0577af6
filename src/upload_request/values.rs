//! Values of fields as they came: what has the wrong type is read over, and told apart from what is absent.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{MAX_ENVS, cut};

/// A value that should be a string, a number, true or false.
pub(super) enum Scalar {
    Text(String),
    Number(u64),
    Flag(bool),
    /// Anything else, not kept.
    Other,
}

/// A value that should be a list of strings.
pub(super) enum List {
    Texts(Vec<Scalar>),
    /// More than [`MAX_ENVS`].
    TooLong,
    Other,
}

/// A value that should be an object of limits.
pub(super) enum Limit {
    Fields(Box<LimitFields>),
    /// A key that is no limit.
    Unknown(String),
    Twice(&'static str),
    Other,
}

#[derive(Default)]
pub(super) struct LimitFields {
    pub(super) by_name: [Option<Scalar>; LIMITS.len()],
}

pub(super) const LIMITS: [&str; 6] = ["memory", "cpu", "pids", "timeout", "concurrency", "queue"];

/// Visitor methods for values of types that are not wanted: read over, and taken as `Other`.
macro_rules! other {
    ($($method:ident: $value:ty),*) => {
        $(fn $method<E>(self, _: $value) -> Result<Self::Value, E> {
            Ok(Self::Value::Other)
        })*
    };
}

fn skip_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<(), A::Error> {
    while list.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

fn skip_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl<'de> Visitor<'de> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar::Number(number))
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }
            fn visit_bool<E>(self, flag: bool) -> Result<Scalar, E> {
                Ok(Scalar::Flag(flag))
            }
            other!(visit_i64: i64, visit_f64: f64);
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Scalar, A::Error> {
                skip_list(list).map(|()| Scalar::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Scalar, A::Error> {
                skip_map(map).map(|()| Scalar::Other)
            }
        }
        from.deserialize_any(ScalarVisitor)
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = List;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of strings")
            }
            other!(visit_str: &str, visit_u64: u64, visit_i64: i64, visit_f64: f64, visit_bool: bool);
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    if texts.len() == MAX_ENVS {
                        skip_list(list)?;
                        return Ok(List::TooLong);
                    }
                    texts.push(text);
                }
                Ok(List::Texts(texts))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<List, A::Error> {
                skip_map(map).map(|()| List::Other)
            }
        }
        from.deserialize_any(ListVisitor)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct LimitVisitor;
        impl<'de> Visitor<'de> for LimitVisitor {
            type Value = Limit;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of limits")
            }
            other!(visit_str: &str, visit_u64: u64, visit_i64: i64, visit_f64: f64, visit_bool: bool);
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Limit, A::Error> {
                skip_list(list).map(|()| Limit::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Limit, A::Error> {
                let mut fields = Box::<LimitFields>::default();
                while let Some(key) = map.next_key::<String>()? {
                    let known = LIMITS.iter().zip(&mut fields.by_name).find(|(name, _)| **name == key);
                    let wrong = match known {
                        None => Limit::Unknown(cut(&key)),
                        Some((name, Some(_))) => Limit::Twice(name),
                        Some((_, place)) => {
                            *place = map.next_value()?;
                            continue;
                        }
                    };
                    map.next_value::<IgnoredAny>()?;
                    skip_map(map)?;
                    return Ok(wrong);
                }
                Ok(Limit::Fields(fields))
            }
        }
        from.deserialize_any(LimitVisitor)
    }
}
