// The stage: draws a picture, alone or beside the camera's, with one zoom and one place for both.

const MOST_ZOOM = 16;

export class Stage {
  constructor(canvas, parts) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.parts = parts; // {split, labelOriginal, labelPicture, zoom}
    this.shown = null;
    this.rungs = []; // names, as the status lists them
    this.badge = true; // whether the picture carries one, which zooming may move out of sight
    this.mode = "single"; // or "split", "side-by-side"
    this.line = 0.5; // of the stage's width
    this.zoom = 1;
    this.middle = { x: 0.5, y: 0.5 }; // of the picture
    this.pointers = new Map();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  get compares() { return this.mode !== "single"; }

  show(shown) {
    this.shown?.picture.close();
    this.shown?.original?.close();
    this.shown = shown;
    this.draw();
  }

  setMode(mode) {
    this.mode = this.mode === mode ? "single" : mode;
    this.draw();
  }

  moveLine(to) {
    this.line = Math.min(1, Math.max(0, to));
    this.draw();
  }

  zoomBy(factor, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    const zoom = Math.min(MOST_ZOOM, Math.max(1, this.zoom * factor));
    const half = this.halves()[0];
    if (half && zoom !== this.zoom) {
      // The picture's point under the hand stays under it.
      const dx = (x - (half.x + half.width / 2)) % half.width, dy = (y - (half.y + half.height / 2)) % half.height;
      const fit = this.fit(half);
      const shift = 1 / this.zoom - 1 / zoom;
      this.middle.x += (dx / fit.width) * shift;
      this.middle.y += (dy / fit.height) * shift;
    }
    this.zoom = zoom;
    this.settle();
  }

  panBy(dx, dy) { // in pixels of the canvas
    const half = this.halves()[0];
    if (!half) return;
    const fit = this.fit(half);
    this.middle.x -= dx / (fit.width * this.zoom);
    this.middle.y -= dy / (fit.height * this.zoom);
    this.settle();
  }

  reset() {
    this.zoom = 1;
    this.settle();
  }

  settle() {
    const half = 0.5 / this.zoom;
    this.middle.x = Math.min(1 - half, Math.max(half, this.middle.x));
    this.middle.y = Math.min(1 - half, Math.max(half, this.middle.y));
    this.draw();
  }

  resize() {
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    const width = Math.round(this.canvas.clientWidth * ratio), height = Math.round(this.canvas.clientHeight * ratio);
    if (width && height && (width !== this.canvas.width || height !== this.canvas.height)) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.draw();
    }
  }

  // The parts of the canvas that hold one picture each.
  halves() {
    const { width, height } = this.canvas;
    if (!this.shown) return [];
    if (this.mode !== "side-by-side" || !this.shown.original) return [{ x: 0, y: 0, width, height }];
    const across = Math.min(width / 2 / this.shown.width, height / this.shown.height);
    const down = Math.min(width / this.shown.width, height / 2 / this.shown.height);
    return across >= down
      ? [{ x: 0, y: 0, width: width / 2, height }, { x: width / 2, y: 0, width: width / 2, height }]
      : [{ x: 0, y: 0, width, height: height / 2 }, { x: 0, y: height / 2, width, height: height / 2 }];
  }

  fit(half) {
    const scale = Math.min(half.width / this.shown.width, half.height / this.shown.height);
    return { width: this.shown.width * scale, height: this.shown.height * scale };
  }

  // Where the whole picture lies, zoomed and panned.
  place(half) {
    const fit = this.fit(half);
    const width = fit.width * this.zoom, height = fit.height * this.zoom;
    return {
      x: half.x + half.width / 2 - this.middle.x * width, y: half.y + half.height / 2 - this.middle.y * height,
      width, height,
    };
  }

  draw() {
    const { context, canvas, shown } = this;
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (shown) {
      const halves = this.halves();
      if (halves.length === 2) {
        this.paint("original", halves[0], halves[0]);
        this.paint("picture", halves[1], halves[1]);
      } else {
        this.paint("picture", halves[0], halves[0]);
        if (this.mode === "split" && shown.original) {
          this.paint("original", halves[0], { ...halves[0], width: this.line * canvas.width });
        }
      }
    }
    this.dress();
  }

  paint(which, half, clip) {
    const { context, shown } = this;
    const place = this.place(half);
    // A coded H.264 picture may be one pixel larger than the picture: only the picture's own part is drawn.
    const [width, height] = which === "picture" ? [shown.width, shown.height] : [shown.originalWidth, shown.originalHeight];
    // Enlarged, both are given the browser's bicubic, so that neither is made to look worse than it is; brought down by
    // less than two, bilinear loses nothing and is several times faster.
    const scale = place.width / width;
    context.save();
    context.imageSmoothingQuality = scale >= 0.5 && scale <= 1 ? "low" : "high";
    context.beginPath();
    context.rect(clip.x, clip.y, clip.width, clip.height);
    context.clip();
    context.drawImage(shown[which], 0, 0, width, height, place.x, place.y, place.width, place.height);
    context.restore();
  }

  dress() {
    const { split, labelOriginal, labelPicture, zoom } = this.parts;
    const both = Boolean(this.shown?.original) && this.compares;
    const isSplit = both && this.mode === "split";
    split.hidden = !isSplit;
    split.style.left = `${this.line * 100}%`;
    split.setAttribute("aria-valuenow", String(Math.round(this.line * 100)));
    split.setAttribute("aria-valuetext", `${Math.round(this.line * 100)} % camera`);
    labelOriginal.hidden = !both;
    labelPicture.hidden = !both && !(this.zoom > 1 && this.shown && !this.shown.isSlate);
    if (!labelPicture.hidden) this.placeLabels(both, isSplit);
    zoom.hidden = this.zoom === 1;
    zoom.textContent = `× ${this.zoom.toFixed(1)}`;
    this.canvas.classList.toggle("zoomed", this.zoom > 1);
    Object.assign(this.canvas.dataset, this.shown ? { number: this.shown.number, rung: this.shown.rung } : {});
  }

  placeLabels(both, isSplit) {
    const { labelOriginal, labelPicture } = this.parts;
    const ratio = this.canvas.width / this.canvas.clientWidth;
    const second = isSplit ? { x: this.line * this.canvas.width, y: 0 } : this.halves()[both ? 1 : 0];
    const rung = this.rungs[this.shown.rung] ?? "";
    const made = (this.zoom > 1 || isSplit) && this.badge ? "AI-ENHANCED, research use" : "Enhanced";
    labelPicture.textContent = rung.startsWith("bicubic") ? `Resampled · ${rung}` : `${made} · ${rung}`;
    const room = made.length > 10 ? 310 : 170;
    labelPicture.style.left = `${Math.min(second.x / ratio + 10, this.canvas.clientWidth - room)}px`;
    labelPicture.style.top = `${second.y / ratio + 10}px`;
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const ratio = this.canvas.width / box.width;
    return { x: (event.clientX - box.left) * ratio, y: (event.clientY - box.top) * ratio };
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const { x, y } = this.at(event);
      this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), x, y);
    }, { passive: false });
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, this.at(event));
      canvas.classList.add("dragged");
    });
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => {
        this.pointers.delete(event.pointerId);
        canvas.classList.toggle("dragged", this.pointers.size > 0);
      });
    }
    this.listenToLine();
  }

  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = this.at(event);
    if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const apart = (place) => Math.hypot(place.x - other.x, place.y - other.y) || 1;
      this.zoomBy(apart(now) / apart(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
      this.panBy((now.x - before.x) / 2, (now.y - before.y) / 2);
    } else if (this.zoom > 1) {
      this.panBy(now.x - before.x, now.y - before.y);
    }
    this.pointers.set(event.pointerId, now);
  }

  listenToLine() {
    const { split } = this.parts;
    split.addEventListener("pointerdown", (event) => split.setPointerCapture(event.pointerId));
    split.addEventListener("pointermove", (event) => {
      if (split.hasPointerCapture(event.pointerId)) this.moveLine(this.at(event).x / this.canvas.width);
    });
    split.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -0.02, ArrowDown: -0.02, ArrowRight: 0.02, ArrowUp: 0.02, PageDown: -0.1, PageUp: 0.1 };
      const ends = { Home: 0, End: 1 };
      if (event.key in steps) this.moveLine(this.line + steps[event.key]);
      else if (event.key in ends) this.moveLine(ends[event.key]);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }
}
