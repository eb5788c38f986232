// Colours of cells: the maps of attn_guide/plot/palette.py, the same on light and dark pages.

const MAPS = {
  weights: ["#fcf8fa", "#f3cfdf", "#dc86ae", "#b53a78", "#7d0546", "#4a0028"],
  scores: ["#7a3300", "#c26316", "#eaa869", "#f8e2cd", "#fafafa", "#e6dcf5", "#bb9be6", "#8350c6", "#4d1f8a"],
  values: ["#6f5a2a", "#a78e58", "#d3c29b", "#efe8da", "#fafafa", "#dde7ef", "#a5bfd4", "#628aab", "#30597c"],
};
const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const ANCHORS = Object.fromEntries(Object.entries(MAPS).map(([name, list]) => [name, list.map(channels)]));

/** Red, green and blue of a place on a map, from 0 to 1. */
export function colourOf(name, place) {
  const anchors = ANCHORS[name];
  const at = Math.min(Math.max(place, 0), 1) * (anchors.length - 1);
  const low = Math.min(Math.floor(at), anchors.length - 2);
  return anchors[low].map((x, c) => Math.round(x + (at - low) * (anchors[low + 1][c] - x)));
}

const luminance = (rgb) => {
  const [r, g, b] = rgb.map((x) => x / 255).map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};

/** Black or white, whichever reads better on a colour. */
export const inkOn = (rgb) => ((luminance(rgb) + 0.05) / 0.05 >= 1.05 / (luminance(rgb) + 0.05) ? "#000" : "#fff");
