//! Publications as fossil deltas, for subscriptions that negotiated them.
//!
//! On such a subscription JSON clients get every payload as a JSON string: a full one to begin with, then patches
//! where they are smaller. Protobuf clients get bytes. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use super::fossil;
use super::protocol::{Encoding, Payload, Publication, json_string};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The subscription knows no deltas.
    Plain,
    /// Whole, on a subscription with deltas.
    Full,
    /// Against the previous publication, where that is smaller.
    Patch,
}

/// The publication in the given form. `None`: the payload is not text, which a JSON client needs.
pub fn publication<'p>(
    encoding: Encoding,
    form: Form,
    publication: &'p Publication,
    previous: Option<&Publication>,
) -> Option<Cow<'p, Publication>> {
    if form == Form::Plain {
        return Some(Cow::Borrowed(publication));
    }
    if form == Form::Patch
        && let Some(patch) = previous.and_then(|previous| patch(encoding, previous, publication))
    {
        return Some(Cow::Owned(Publication {
            data: patch,
            delta: true,
            ..publication.clone()
        }));
    }
    match encoding {
        Encoding::Protobuf => Some(Cow::Borrowed(publication)),
        Encoding::Json => {
            let data = json_string(&publication.data)?;
            Some(Cow::Owned(Publication {
                data,
                ..publication.clone()
            }))
        }
    }
}

/// Publications in stream order, each after the first against its predecessor: what a recovering subscriber gets.
pub fn chain(encoding: Encoding, publications: &[Arc<Publication>]) -> Option<Vec<Publication>> {
    let mut previous: Option<&Publication> = None;
    let mut chained = Vec::with_capacity(publications.len());
    for next in publications {
        let form = if previous.is_some() {
            Form::Patch
        } else {
            Form::Full
        };
        chained.push(publication(encoding, form, next, previous)?.into_owned());
        previous = Some(next);
    }
    Some(chained)
}

/// `None` when a patch would not be smaller, or could not be said as text.
fn patch(encoding: Encoding, previous: &Publication, publication: &Publication) -> Option<Payload> {
    let patch = fossil::create(&previous.data, &publication.data);
    if patch.len() >= publication.data.len() {
        return None;
    }
    match encoding {
        Encoding::Protobuf => Some(patch.into()),
        Encoding::Json => json_string(&patch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publications(texts: &[String]) -> Vec<Arc<Publication>> {
        let new = |text: &String| Publication {
            data: text.clone().into(),
            ..Publication::default()
        };
        texts.iter().map(|text| Arc::new(new(text))).collect()
    }

    /// What a client makes of a chain.
    fn apply(encoding: Encoding, chain: &[Publication]) -> Vec<Vec<u8>> {
        let mut known = Vec::new();
        let mut texts = Vec::new();
        for publication in chain {
            let data: Vec<u8> = match encoding {
                Encoding::Json => serde_json::from_slice::<String>(&publication.data)
                    .unwrap()
                    .into(),
                Encoding::Protobuf => publication.data.to_vec(),
            };
            known = if publication.delta {
                fossil::apply(&known, &data).unwrap()
            } else {
                data
            };
            texts.push(known.clone());
        }
        texts
    }

    #[test]
    fn a_chain_gives_back_every_publication() {
        let texts: Vec<String> = (0..5)
            .map(|n| format!(r#"{{"text":"{}é","n":{n}}}"#, "same ".repeat(50)))
            .collect();
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let chain = chain(encoding, &publications(&texts)).unwrap();
            assert!(!chain[0].delta);
            assert!(
                chain[1..].iter().all(|publication| publication.delta),
                "similar texts make small patches"
            );
            let want: Vec<Vec<u8>> = texts.iter().map(|text| text.clone().into_bytes()).collect();
            assert_eq!(apply(encoding, &chain), want);
        }
    }

    #[test]
    fn unlike_publications_are_sent_whole() {
        let texts = vec!["{\"a\":1}".to_owned(), "[]".to_owned()];
        let chain = chain(Encoding::Json, &publications(&texts)).unwrap();
        assert!(!chain[1].delta);
        assert_eq!(apply(Encoding::Json, &chain)[1], b"[]");
    }
}
