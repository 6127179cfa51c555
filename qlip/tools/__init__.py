"""Tools that show and choose: ``qlip show`` draws what tokens hold, ``qlip tune`` finds the settings for a folder of pictures."""
