//! The catalogue against the files that it names.

use converge_core::hub::{self, HubError};
use converge_tests::model;

#[test]
fn the_smallest_model_is_what_the_catalogue_says() {
    let entry = hub::find(converge_examples::models::SMALLEST).unwrap();
    let path = model(entry.name);
    let cache = hub::cache_dir().unwrap();
    assert_eq!(path, cache.join(entry.path));
    let mut last = 0;
    hub::verify(&cache, entry, &mut |done, total| {
        assert!(last < done && done <= total);
        last = done;
    })
    .unwrap_or_else(|error: HubError| panic!("{error}"));
    assert_eq!(last, entry.size());
}
