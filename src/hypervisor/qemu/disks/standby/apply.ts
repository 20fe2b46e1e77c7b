// Extents into an image: several requests at once, since they do not overlap.

import { WriteKind, f64At, u32At, type Extents } from '../../../../disk/extents.js';
import { asError } from '../../../../errors.js';
import type { Images } from './images.js';

/** Requests under way: so the image's process has the next one when it is done with one. */
const DEPTH = 16;
/** Of one request: a disk that is slow, but not hung, has to be done with all that is under way in time. */
const DATA_BYTES_MAX = 1024 * 1024;
const ZEROES_BYTES_MAX = 256 * 1024 * 1024;

/**
 * `data`: what places are in. What was discarded is made zeroes: it is undefined on the other side, and this way room
 * is given back as it is there.
 * @throws as Images.write(): the first error, when nothing is under way any more
 */
export async function applyExtents(
  images: Images,
  disk: number,
  extents: Extents,
  data: Uint8Array,
): Promise<void> {
  let index = 0;
  let done = 0;
  const failures: Error[] = [];
  const next = (): Promise<void> | null => {
    if (index >= extents.count || failures.length > 0) return null;
    const offset = f64At(extents.offsets, index) + done;
    const left = f64At(extents.lengths, index) - done;
    const isData = extents.kinds[index] === WriteKind.DATA;
    const length = Math.min(left, isData ? DATA_BYTES_MAX : ZEROES_BYTES_MAX);
    const place = isData ? u32At(extents.places, index) + done : 0;
    if (length === left) {
      index++;
      done = 0;
    } else {
      done += length;
    }
    if (!isData) return images.zero(disk, offset, length);
    return images.write(disk, offset, data.subarray(place, place + length));
  };
  const lane = async (): Promise<void> => {
    try {
      for (let request = next(); request !== null; request = next()) await request;
    } catch (error) {
      failures.push(asError(error));
    }
  };
  await Promise.all(Array.from({ length: Math.min(DEPTH, extents.count) }, lane));
  const [failure] = failures;
  if (failure) throw failure;
}
