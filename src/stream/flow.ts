// Where a stream leaves the saver and enters the restorer: a file, a channel, or a test stands behind these.

import type { StreamRecord } from './record.js';

/**
 * Octets before each piece, in the memory that the piece lies in, that belong to the sink: a channel writes its
 * framing there instead of copying the piece. (What sk_buff calls headroom.)
 */
export const HEADROOM = 8;

/** A run of whole records (or the two headers), memory[start] to memory[end - 1]; start is at least HEADROOM. */
export interface StreamPiece {
  readonly memory: Uint8Array;
  readonly start: number;
  readonly end: number;
}

export interface StreamSink {
  /**
   * Takes a piece. Resolves when the sink can take another (back-pressure); the memory still belongs to the sink
   * until drain() resolves.
   * @throws Error when the stream cannot be written any more
   */
  write(piece: StreamPiece): Promise<void>;
  /**
   * The pieces since the last boundary are a whole checkpoint (or, with `end`, the end of the stream): called once
   * after each CHECKPOINT (in libxl's layer CHECKPOINT_END) and after the last END record. A channel sends its digest
   * here, a file does nothing.
   */
  boundary(epoch: number, end: boolean): Promise<void>;
  /** Resolves when every piece written so far has left: its memory may be reused. */
  drain(): Promise<void>;
}

export interface StreamHeaders {
  /** Image header: 2 or 3. */
  readonly version: number;
  readonly domainType: number;
  readonly pageShift: number;
  readonly xenMajor: number;
  readonly xenMinor: number;
  /** libxc's stream lies in libxl's: CHECKPOINT_END ends a checkpoint, and libxl's END the stream. */
  readonly layer?: 'libxl';
}

export interface RecordSource {
  /** libxc's image and domain headers. @throws StreamError if they are wrong or do not come */
  headers(): Promise<StreamHeaders>;
  /**
   * The next record, in order, libxl's between libxc's as record-reader.ts draws it. null: the stream is broken here (end of
   * file, cut inside a record, link lost) and no record follows.
   * @throws StreamError for bytes that are wrong, rather than missing
   */
  read(): Promise<StreamRecord | null>;
  /**
   * The caller has done with a record that read() gave, and keeps no view of its body: the memory may be used for
   * another. Need not be called, and at most once for a record.
   */
  release?(record: StreamRecord): void;
}
