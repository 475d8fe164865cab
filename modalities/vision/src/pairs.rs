//! Pairs of views: the views that an image contributes to a batch, by method.

use std::sync::Arc;

use ctk_core::Result;
use ctk_core::data::pair::PairGenerator;
use ctk_core::model::supervised::Logits;
use ctk_core::rng::Rng;
use ctk_images::augment::Augment;
use ctk_images::picture::Picture;
use ctk_images::pixels::Pixels;

/// SimCLR's positive pair: two independent augmentations of one image (Chen et al. 2020a, §2.1).
#[derive(Clone, Debug)]
pub struct TwoViews(pub Augment);

impl PairGenerator for TwoViews {
    type Sample = Arc<Picture>;
    type Left = Pixels;
    type Right = ();

    fn views(&self) -> [usize; 2] {
        [2, 0]
    }

    fn pairs(&self, sample: &Arc<Picture>, rng: &mut Rng, left: &mut [Pixels], _: &mut [()]) -> Result<()> {
        left.iter_mut().for_each(|view| self.0.view(sample, rng, view.grow(self.0.size)));
        Ok(())
    }
}

/// One augmentation of an image, for tasks with a single view; a teacher's logits are added later.
#[derive(Clone, Debug)]
pub struct OneView(pub Augment);

impl PairGenerator for OneView {
    type Sample = Arc<Picture>;
    type Left = Pixels;
    type Right = Logits;

    fn views(&self) -> [usize; 2] {
        [1, 0]
    }

    fn pairs(&self, sample: &Arc<Picture>, rng: &mut Rng, left: &mut [Pixels], _: &mut [Logits]) -> Result<()> {
        left.iter_mut().for_each(|view| self.0.view(sample, rng, view.grow(self.0.size)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctk_core::data::source::{Paired, Source};
    use ctk_core::modality::View;
    use ctk_core::recipe::Recipe;
    use ctk_core::rng::Key;
    use ctk_images::augment::AugmentRecipe;
    use ctk_images::dataset::Cache;
    use ctk_images::pixels::side;

    #[test]
    fn a_side_is_that_of_the_pair() {
        let augment = AugmentRecipe::default().check(&Recipe::new("test", "")).unwrap();
        let images = ctk_images::generated::open(5, 0).train;
        let mut views = [Pixels::default(), Pixels::default()];
        for i in 2..5 {
            let mut rng = Key::new(3).at(i as u64).rng();
            TwoViews(augment.clone()).pairs(&images.picture(i).unwrap(), &mut rng, &mut views, &mut []).unwrap();
        }
        assert_eq!(side(&images, &augment, 2..5, View::Left, Key::new(3)).unwrap(), views[0]);
        assert_eq!(side(&images, &augment, 2..5, View::Right, Key::new(3)).unwrap(), views[1]);
    }

    #[test]
    fn batches_do_not_depend_on_the_cache() {
        let augment = AugmentRecipe::default().check(&Recipe::new("test", "")).unwrap();
        let drawn = |cache: &str| {
            let data = ctk_images::generated::open(6, 0).cached(Cache::of(cache).unwrap()).train;
            let source = Paired { data, pairs: TwoViews(augment.clone()) };
            // The second time, some or all of them are cached.
            [[4, 0, 5, 2], [2, 1, 4, 3]].map(|samples| source.draw(&samples, Key::new(1)).unwrap().left)
        };
        let expected = drawn("off");
        assert_eq!(drawn("7KB"), expected);
        assert_eq!(drawn("auto"), expected);
    }
}
