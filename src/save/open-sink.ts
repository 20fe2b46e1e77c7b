// Where an image goes, by what stands at its place: a regular file, or a name that is free, is replaced when the image
// is whole; everything else is written through, for better or worse.
//
//   free, file                              FileSink       nothing under the name before the image is whole
//   fifo, socket, block, character device,  ThroughSink    what is written is written
//   descriptor (-, /dev/stdout)
//   folder, terminal                        refused

import { SaveError } from './error.js';
import { FileSink } from './file-sink.js';
import type { ImageSink } from './image-sink.js';
import type { Place } from './place.js';
import { ThroughSink } from './through-sink.js';

/**
 * @param signal ends the waiting for a FIFO's reader, and for a reader that stalls
 * @throws SaveError BAD_PLACE, PLACE_IN_USE; Node's system errors
 */
export async function openImageSink(place: Place, signal?: AbortSignal): Promise<ImageSink> {
  const { kind, path, fd, stat } = place;
  switch (kind) {
    case 'folder':
      throw new SaveError('BAD_PLACE', `${path} is a folder`, { path });
    case 'terminal':
      throw new SaveError('BAD_PLACE', `${path} is a terminal: an image is no text`, { path });
    case 'free':
      return FileSink.create(path);
    case 'file':
      return fd === null ? FileSink.create(path, stat) : ThroughSink.open(place, signal);
    case 'fifo':
    case 'socket':
    case 'block':
    case 'character':
      return ThroughSink.open(place, signal);
  }
}
