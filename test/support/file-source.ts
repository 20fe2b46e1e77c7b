// A stream out of a file, for tests: the command line reads files in its own way (cli/files/).

import { createReadStream } from 'node:fs';
import { ChunkSource } from '../../src/restore/file-source.js';

/** Close it when done; a file that cannot be opened fails the first read. */
export function openFileSource(path: string): ChunkSource {
  const stream: AsyncIterable<Buffer> = createReadStream(path, { highWaterMark: 1024 * 1024 });
  return new ChunkSource(stream);
}
