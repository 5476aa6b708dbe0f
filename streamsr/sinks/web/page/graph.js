// A small line of numbers over time.

export class Graph {
  constructor(canvas, { most = 300, floor = 1, colour = "#5cc8c2" } = {}) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.most = most; // values kept
    this.floor = floor; // the scale is never finer than this
    this.colour = colour;
    this.values = [];
  }

  add(value) {
    this.values.push(value);
    if (this.values.length > this.most) this.values.shift();
  }

  draw({ limit = 0, unit = "" } = {}) {
    const { canvas, context, values } = this;
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    const width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const top = Math.max(this.floor, limit * 1.15, ...values) * 1.08;
    const y = (value) => height - 2 - (value / top) * (height - 4);
    if (limit) this.rule(y(limit), `${Math.round(limit)} ${unit}`);
    context.beginPath();
    values.forEach((value, place) => context.lineTo(width - (values.length - 1 - place) * (width / (this.most - 1)), y(value)));
    context.strokeStyle = this.colour;
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.stroke();
  }

  rule(y, text) {
    const { context, canvas } = this;
    context.setLineDash([3, 4]);
    context.strokeStyle = "#e8b04a88";
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(0, y);
    context.lineTo(canvas.clientWidth, y);
    context.stroke();
    context.setLineDash([]);
    context.fillStyle = "#e8b04a";
    context.font = "10px system-ui, sans-serif";
    context.fillText(text, 4, y - 3);
  }
}
