//! Texts that go into objects of the API.

/// The most bytes of a condition's message: 1,000 characters of any script. What somebody else has
/// written may be quoted in it. (The API itself allows 32,768.)
pub(super) const MESSAGE: usize = 4000;

const CUT: char = '…';

/// At most `most` bytes of `text`. One that was cut ends with `…`.
pub(super) fn shortened(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most.saturating_sub(CUT.len_utf8())));
        text.push(CUT);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_two_characters_and_counted_in_bytes() {
        assert_eq!(shortened("lost".to_owned(), 4), "lost");
        assert_eq!(shortened("stolen".to_owned(), 5), "st…");
        for script in ["a", "ж", "遗", "🔑"] {
            for more in 0..4 {
                let long = "a".repeat(more) + &script.repeat(2000);
                let short = shortened(long.clone(), 1024);
                assert!((1018..=1024).contains(&short.len()), "{}", short.len());
                assert!(long.starts_with(short.strip_suffix('…').unwrap()));
            }
        }
    }
}
