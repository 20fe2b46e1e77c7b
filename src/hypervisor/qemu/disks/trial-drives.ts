// Disks in a QEMU's arguments that are put elsewhere: in the place of an image of this host comes an export of somebody's, and
// the guest sees no difference.

import { fileNodeOf, isOption, optionsIn } from './drives.js';

/** An export of an NBD server on a unix socket. */
export interface NbdPlace {
  readonly socket: string;
  readonly name: string;
}

/** What is written lies in a file for temporary ones until the end. */
export const TRIAL_BYTES_PER_SECOND = 2 ** 25;
const PACE = 'romulus-pace';

/** Of a -drive: what is about the device, and not about its image. */
const OF_DEVICE: ReadonlySet<string> = new Set([
  ...[
    'id',
    'node-name',
    'if',
    'index',
    'bus',
    'unit',
    'media',
    'werror',
    'rerror',
    'discard',
    'detect-zeroes',
  ],
  ...['cache', 'cache.writeback', 'cache.direct', 'cache.no-flush'],
]);

const PACED = /^(throttling\.|bps|iops)/;

/** `places`: by the names of drives and nodes. The files that only these are in are not opened. */
export function withPlaces(words: readonly string[], places: ReadonlyMap<string, NbdPlace>): string[] {
  const unused = unusedFiles(words, places);
  const found: string[] = [];
  if (places.size > 0) {
    const group = { 'qom-type': 'throttle-group', id: PACE, limits: { 'bps-write': TRIAL_BYTES_PER_SECOND } };
    found.push('-object', JSON.stringify(group));
  }
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? '';
    const value = words[at + 1];
    const option = ['drive', 'blockdev'].find((name) => isOption(word, name));
    if (option === undefined || value === undefined) {
      found.push(word);
      continue;
    }
    at++;
    const options = optionsIn(value);
    const name = options.get(option === 'drive' ? 'id' : 'node-name') ?? '';
    const place = places.get(name);
    if (option === 'blockdev' && unused.has(name)) continue;
    if (place === undefined) found.push(word, value);
    else found.push(word, option === 'drive' ? drive(options, place) : node(name, options, place));
  }
  return found;
}

/** Files of nodes that are replaced, and of no others. */
function unusedFiles(words: readonly string[], places: ReadonlyMap<string, NbdPlace>): ReadonlySet<string> {
  const unused = new Set<string>();
  const used = new Set<string>();
  for (const [at, word] of words.entries()) {
    if (!isOption(words[at - 1], 'blockdev')) continue;
    const options = optionsIn(word);
    const isReplaced = places.has(options.get('node-name') ?? '');
    const file = fileNodeOf(options);
    if (file !== null && isReplaced) unused.add(file);
    if (isReplaced) continue;
    for (const key of ['file', 'backing']) used.add(options.get(key) ?? '');
  }
  return new Set([...unused].filter((file) => !used.has(file)));
}

function drive(options: ReadonlyMap<string, string>, { socket, name }: NbdPlace): string {
  const kept = [...options].filter(([key]) => OF_DEVICE.has(key) || PACED.test(key));
  if (!kept.some(([key]) => PACED.test(key))) {
    kept.push(['throttling.bps-write', String(TRIAL_BYTES_PER_SECOND)]);
  }
  const file = { driver: 'nbd', 'server.type': 'unix', 'server.path': socket, export: name };
  const all = [
    ...kept,
    ['format', 'raw'],
    ...Object.entries(file).map(([key, value]) => [`file.${key}`, value]),
  ];
  // A comma in a value is written twice.
  return all.map(([key = '', value = '']) => `${key}=${value.replaceAll(',', ',,')}`).join(',');
}

function node(nodeName: string, options: ReadonlyMap<string, string>, { socket, name }: NbdPlace): string {
  const discard = options.get('discard');
  const given = discard === undefined ? {} : { discard };
  const file = { driver: 'nbd', server: { type: 'unix', path: socket }, export: name, ...given };
  return JSON.stringify({
    driver: 'throttle',
    'node-name': nodeName,
    'throttle-group': PACE,
    ...given,
    file,
  });
}
