//! The stored form and the study file use the same words.

use super::*;
use std::fmt::{Debug, Display};
use std::str::FromStr;
use strum::VariantNames;

fn check<T>()
where
    T: VariantNames + FromStr<Err: Debug> + Display + Serialize + for<'a> Deserialize<'a>,
{
    for name in T::VARIANTS {
        let value: T = name.parse().unwrap();
        assert_eq!(value.to_string(), *name);
        assert_eq!(serde_json::to_value(&value).unwrap(), *name);
        assert_eq!(serde_json::from_value::<T>((*name).into()).unwrap().to_string(), *name);
    }
    assert!("?".parse::<T>().is_err());
}

#[test]
fn the_stored_form_and_the_study_file_use_the_same_words() {
    check::<BackboneKind>();
    check::<PixelScaling>();
    check::<PoolPadding>();
    check::<BatchNormMode>();
    check::<CachePrecision>();
    check::<HeadKind>();
    check::<OptimiserKind>();
    check::<ScheduleKind>();
    check::<LossKind>();
    check::<ImbalancePolicy>();
    check::<NormStatistics>();
    check::<BadFilePolicy>();
    check::<ColourMode>();
    check::<ValidationPolicy>();
    check::<Direction>();
    check::<Precision>();
}
