//! A parameter's value.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One value of one parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite floating-point number.
    Float(f64),
    /// A text, as in a categorical choice.
    Text(String),
}

impl Value {
    /// The value as a number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Int(i) => Some(i as f64),
            Self::Float(x) => Some(x),
            _ => None,
        }
    }

    /// The value as a whole number, if it is one (4.0 is).
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::Int(i) => Some(i),
            // 2^63 is the first float beyond i64.
            Self::Float(x) if x.fract() == 0.0 && (-(2f64.powi(63))..2f64.powi(63)).contains(&x) => Some(x as i64),
            _ => None,
        }
    }

    /// Whether two values mean the same: numbers are compared across types (3 is 3.0), all others within their type.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int(_) | Self::Float(_), Self::Int(_) | Self::Float(_)) => match (self.as_i64(), other.as_i64()) {
                (Some(a), Some(b)) => a == b,
                _ => self.as_f64() == other.as_f64(),
            },
            _ => self == other,
        }
    }

    /// The bytes that stand for this value in digests: a tag for the type, then the value, floats by their bits.
    pub(crate) fn canonical_bytes(&self) -> Vec<u8> {
        let (tag, bytes) = match self {
            Self::Bool(b) => (b'b', vec![u8::from(*b)]),
            Self::Int(i) => (b'i', i.to_le_bytes().to_vec()),
            Self::Float(x) => (b'f', (if *x == 0.0 { 0.0 } else { *x }).to_bits().to_le_bytes().to_vec()),
            Self::Text(t) => (b't', t.as_bytes().to_vec()),
        };
        [vec![tag], bytes].concat()
    }

    /// The value as a text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(t) => Some(t),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => b.fmt(f),
            Self::Int(i) => i.fmt(f),
            Self::Float(x) if *x != 0.0 && !(1e-3..1e6).contains(&x.abs()) => write!(f, "{x:e}"),
            Self::Float(x) => x.fmt(f),
            Self::Text(t) => t.fmt(f),
        }
    }
}

/// Values for people: `1, 2 or 3`.
pub(super) fn list(values: &[Value]) -> String {
    match values {
        [] => String::from("nothing"),
        [only] => only.to_string(),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(Value::to_string).collect();
            format!("{} or {last}", first.join(", "))
        }
    }
}
