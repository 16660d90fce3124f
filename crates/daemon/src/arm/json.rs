//! Bodies as JSON, within limits: a hostile one costs its own length and no more.

use serde_json::Value;

/// ARM's bodies nest some ten levels.
const DEPTH: usize = 64;
/// Values of one body: a VNet with 3000 subnets, sent back as it was read, has some 40,000. A value takes about 100 bytes.
const VALUES: usize = 200_000;

/// The value of a body; null for an empty one.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn parse(body: &[u8]) -> Result<Value, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    measure(body)?;
    serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))
}

/// Counts brackets and commas outside strings, before anything is built.
fn measure(body: &[u8]) -> Result<(), String> {
    let (mut depth, mut values) = (0_usize, 1_usize);
    let (mut in_string, mut escaped) = (false, false);
    for &byte in body {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                values += 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > DEPTH {
            return Err(format!("the body nests deeper than {DEPTH} levels"));
        }
        if values > VALUES {
            return Err(format!("the body has more than {VALUES} values"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn depth_and_number_of_values_have_limits() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(nested(DEPTH).as_bytes()).is_ok());
        assert!(
            parse(nested(DEPTH + 1).as_bytes())
                .unwrap_err()
                .contains("deeper")
        );
        assert!(
            parse("[".repeat(1 << 20).as_bytes())
                .unwrap_err()
                .contains("deeper")
        );
        let list = |values: usize| format!("[{}0]", "0,".repeat(values));
        assert!(parse(list(VALUES).as_bytes()).unwrap_err().contains("values"));
        assert!(parse(list(VALUES - 2).as_bytes()).is_ok());
        let text = format!(r#"{{"a":"{}"}}"#, "[,".repeat(VALUES));
        assert!(parse(text.as_bytes()).is_ok());
        assert_eq!(parse(b" \n"), Ok(Value::Null));
    }

    proptest! {
        /// Whatever serde_json takes within the limits, is taken; nothing else is, and nothing panics.
        #[test]
        fn the_limits_refuse_nothing_else(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let blank = body.iter().all(u8::is_ascii_whitespace);
            prop_assert_eq!(parse(&body).is_ok(), blank || serde_json::from_slice::<Value>(&body).is_ok());
        }
    }
}
