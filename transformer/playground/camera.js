// The camera: one request in flight; frames that come meanwhile are dropped and counted.

import { ApiError } from "./api.js";

const WORDS = {
  NotAllowedError: ["The browser may not use the camera.", "Allow it in the browser's settings of this page."],
  NotFoundError: ["There is no camera.", "Connect one, or choose a file."],
  NotReadableError: ["The camera could not be opened.", "Does another program use it?"],
  OverconstrainedError: ["The camera has no such resolution.", "Choose a file."],
};
const QUALITY = 0.85; // of the JPEGs
const LONGEST_PX = 1280;

export class Camera {
  /** @param {(frame: {blob: Blob, width: number, height: number}) => Promise<boolean>} send false ends it */
  constructor(send) {
    this.send = send;
    this.video = document.createElement("video");
    this.video.muted = true;
    this.video.playsInline = true;
    this.stream = null;
    this.counts = { sent: 0, dropped: 0 };
  }

  get isOn() {
    return this.stream !== null;
  }

  /** @throws {ApiError} in words */
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new ApiError("The browser gives the camera to secure pages alone.", { next: "Open this page by https, or at localhost." });
    }
    try {
      const wanted = { width: { ideal: LONGEST_PX }, facingMode: { ideal: "environment" } };
      this.stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
    } catch (error) {
      const [message, next] = WORDS[error.name] ?? [`The camera failed: ${error.message}`, "Choose a file."];
      throw new ApiError(message, { next });
    }
    this.stream.getVideoTracks()[0].addEventListener("ended", () => this.stop());
    this.video.srcObject = this.stream;
    await this.video.play();
    this.counts = { sent: 0, dropped: 0 };
    this.#run(this.stream);
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
  }

  async #run(stream) {
    let shown = 0; // frames of the camera since the last one that was sent
    const count = () => {
      shown += 1;
      if (this.stream === stream) this.video.requestVideoFrameCallback?.(count);
    };
    this.video.requestVideoFrameCallback?.(count);
    while (this.stream === stream) {
      const frame = await this.#grab();
      this.counts.sent += 1;
      shown = 0;
      if (!(await this.send(frame))) return this.stream === stream ? this.stop() : undefined;
      if (shown > 1) this.counts.dropped += shown - 1;
      await new Promise(requestAnimationFrame);
    }
  }

  async #grab() {
    const { videoWidth, videoHeight } = this.video;
    const scale = Math.min(1, LONGEST_PX / Math.max(videoWidth, videoHeight));
    const [width, height] = [Math.round(videoWidth * scale), Math.round(videoHeight * scale)];
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    canvas.getContext("2d").drawImage(this.video, 0, 0, width, height);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
    return { blob, width, height };
  }
}
