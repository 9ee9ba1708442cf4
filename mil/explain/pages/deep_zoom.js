"use strict";
(() => {
  // Deep zoom into the scan of a slide, with the map over it.
  const {slides, paint, state} = window.milCase;
  let viewer = null, shown = null, overlay = null;

  function cover() {
    if (!shown) return;
    const [left, top, right, bottom] = shown.around, longest = 2048;
    const scale = longest / Math.max(right - left, bottom - top);
    paint(shown, overlay, Math.round((right - left) * scale), Math.round((bottom - top) * scale));
    overlay.style.opacity = Number(document.getElementById("opacity").value) / 100;
  }

  function open(slide) {
    shown = slide;
    document.getElementById("scan").hidden = false;
    document.getElementById("scan-name").textContent = slide.name;
    viewer?.destroy();
    const [width, height] = slide.scan.size;
    viewer = OpenSeadragon({
      id: "viewer",
      drawer: "canvas",
      showNavigationControl: false,
      animationTime: 0.4,
      maxZoomPixelRatio: 4,
      tileSources: {Image: {xmlns: "http://schemas.microsoft.com/deepzoom/2008", Url: `${slide.scan.zoom}/`, Format: "jpeg", Overlap: "0", TileSize: "512", Size: {Width: String(width), Height: String(height)}}},
    });
    overlay = document.createElement("canvas");
    overlay.style.imageRendering = "pixelated";
    overlay.style.pointerEvents = "none";
    viewer.addOnceHandler("open", () => {
      cover();
      viewer.addOverlay({element: overlay, location: new OpenSeadragon.Rect(0, 0, 1, height / width)});
      follow({detail: state.pinned});
    });
    document.getElementById("scan").scrollIntoView({block: "nearest"});
  }

  /** Go to the tile that was chosen on the map. */
  function follow({detail: pinned}) {
    if (!viewer?.isOpen() || !pinned || pinned.slide !== shown) return;
    const [left, top, right] = shown.around, {tile} = pinned, wide = right - left;
    const size = 6 * shown.w[tile] / wide;
    const x = (shown.x[tile] + shown.w[tile] / 2 - left) / wide, y = (shown.y[tile] + shown.h[tile] / 2 - top) / wide;
    viewer.viewport.fitBounds(new OpenSeadragon.Rect(x - size / 2, y - size / 2, size, size));
  }

  for (const slide of slides) {
    const button = slide.figure.querySelector(".zooming");
    if (!button) continue;
    button.hidden = false;
    button.addEventListener("click", () => open(slide));
  }
  document.getElementById("zoom-in").addEventListener("click", () => viewer.viewport.zoomBy(1.6));
  document.getElementById("zoom-out").addEventListener("click", () => viewer.viewport.zoomBy(1 / 1.6));
  document.getElementById("zoom-home").addEventListener("click", () => viewer.viewport.goHome());
  document.addEventListener("mapchanged", cover);
  document.addEventListener("tilepinned", follow);
  document.getElementById("opacity").addEventListener("input", cover);
})();
