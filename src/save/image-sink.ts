// Where an image goes: a stream that ends well, by commit, or is given up.

import type { StreamSink } from '../stream/flow.js';

export interface ImageSink extends StreamSink {
  /** Octets written. */
  readonly bytes: number;
  /** Octets that there is room for; null where nobody knows before. */
  readonly room: number | null;
  /** What was written cannot be taken back. */
  readonly through: boolean;
  /** The image is whole. */
  commit(): Promise<void>;
  /** The image is given up. Safe to call twice, and after a failed write. */
  discard(): Promise<void>;
}
