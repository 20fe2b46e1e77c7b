// A packet capture as it grows: whole frames out of the octets of a pcap file.
//
//   header (24): magic ─ version ─ … ─ link type     then, each frame: seconds ─ fraction ─ octets here ─ octets sent ─ frame

const HEADER_BYTES = 24;
const FRAME_HEADER_BYTES = 16;
const MAGIC_MICROSECONDS = 0xa1b2c3d4;
const MAGIC_NANOSECONDS = 0xa1b23c4d;

export interface Frame {
  /** By the clock of whoever captured it. */
  readonly atMs: number;
  readonly bytes: Buffer;
}

/** The whole frames of a capture, of which the last may be cut. */
export function framesOf(capture: Buffer): Frame[] {
  if (capture.length < HEADER_BYTES) return [];
  const magic = capture.readUInt32LE(0);
  if (magic !== MAGIC_MICROSECONDS && magic !== MAGIC_NANOSECONDS) {
    throw new Error(`no capture: ${magic.toString(16)}`);
  }
  const perMs = magic === MAGIC_NANOSECONDS ? 1e6 : 1e3;
  const frames: Frame[] = [];
  let at = HEADER_BYTES;
  while (at + FRAME_HEADER_BYTES <= capture.length) {
    const start = at + FRAME_HEADER_BYTES;
    const end = start + capture.readUInt32LE(at + 8);
    if (end > capture.length) break;
    frames.push({
      atMs: capture.readUInt32LE(at) * 1000 + capture.readUInt32LE(at + 4) / perMs,
      bytes: capture.subarray(start, end),
    });
    at = end;
  }
  return frames;
}
