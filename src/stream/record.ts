// A record of the stream, as the reader yields it.

export interface StreamRecord {
  readonly type: number;
  /** Without padding. A view of the chunk that it came in where it lay in one chunk, else a copy of its own. */
  readonly body: Uint8Array;
  /** Where the record's header stands in the stream, in octets from the image header. */
  readonly offset: number;
  /** Whose types `type` is one of; left out: libxc's. */
  readonly layer?: 'libxl' | 'libxc';
}
