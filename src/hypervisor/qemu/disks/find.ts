// Which of a QEMU's disks are replicated: all that its guest may write to, but for those that the other host sees anyway.
// One that cannot be is refused, by its name and with a reason, before anything is touched.
//
//   query-block          device (-drive id)   qdev (-device id, or its place)   inserted: node, format, size, read-only
//   qom-get qdev type    what the guest sees: some kinds pass the block layer by, or keep a copy of their own
//   info qtree           disks that have no node at all
//   query-block-jobs, query-block-exports    who else has to do with a node
//
// While we mirror a disk, QEMU shows our filter in the place of its node (7.2): it is known by that one's number.

import { HypervisorError, badConfiguration } from '../../port.js';
import { isObject, type JsonObject } from '../monitor/qmp-parser.js';
import { QmpError, type QmpClient } from '../monitor/qmp.js';
import { listOf } from './answers.js';
import { OURS, filterIndexOf } from './names.js';

export interface FoundDisk {
  /** That somebody gave it, the same on both hosts: of its -drive, of its -device, or of its node. */
  readonly id: string;
  /** As the guest sees it: whole sectors. */
  readonly bytes: number;
  /** What its device is plugged into: the node that is mirrored, and read. */
  readonly node: string;
  /** Of that node: raw, qcow2, … */
  readonly format: string;
  /** Of its -drive; empty: there is none. */
  readonly drive: string;
}

export interface FoundDisks {
  readonly disks: readonly FoundDisk[];
  /** Those that both hosts see, by any of their names: what was asked for. */
  readonly shared: readonly string[];
  /** What people should know of them: sentences. */
  readonly notes: readonly string[];
}

/** What the same name on both hosts may consist of (see ReplicatedDisk). */
const ID = /^[A-Za-z0-9._-]{1,64}$/;
/** Of a device that somebody has named: its place among all. */
const NAMED_DEVICE = /^\/machine\/peripheral\/([^/]+)/;
/** The temporary file of `snapshot=on`. */
const SNAPSHOT_FILE = /\/vl\.[A-Za-z0-9]{6}("|$)/;
const NODELESS_DEVICE = /^\s*dev: (vhost-(?:user-)?(?:blk|scsi)\S*), id "(.*)"$/;

/** What the guest sees, by QEMU's name for its kind, and why it cannot be replicated. */
const KINDS_REFUSED: readonly (readonly [RegExp, string])[] = [
  [/^cfi\.pflash/, 'its content is in a memory block of QEMU’s, too; make the flash read-only'],
  [/^scsi-(block|generic)$/, 'the guest’s commands go past QEMU’s block layer; use scsi-hd'],
];
const BYPASS = 'it goes past QEMU’s block layer; use virtio-blk or scsi-hd';

/** What QEMU answers. */
export interface DiskAnswers {
  /** query-block */
  readonly block: readonly JsonObject[];
  /** The kind of each, in that order; empty: it has no device. */
  readonly kinds: readonly string[];
  /** info qtree */
  readonly tree: string;
}

/**
 * `shared`: disks that both hosts see, by any of their names.
 * @throws HypervisorError BAD_CONFIGURATION, with the facts `disk` and `reason`; FAILED, DOMAIN_GONE
 */
export async function findDisks(qmp: QmpClient, shared: readonly string[]): Promise<FoundDisks> {
  const [answers, jobs, exports] = await Promise.all([
    askOf(qmp),
    listOf(qmp, 'query-block-jobs'),
    listOf(qmp, 'query-block-exports'),
  ]);
  const found = judgeDisks(answers, shared);
  refuseUsed(found.disks, jobs, exports);
  return found;
}

/**
 * The same later, when they may be mirrored: which of those that were found are there still, and what else there is, which
 * nobody replicates, in sentences.
 * @throws HypervisorError FAILED, DOMAIN_GONE
 */
export async function disksNow(
  qmp: QmpClient,
  { disks: known, shared }: FoundDisks,
): Promise<{ readonly disks: readonly FoundDisk[]; readonly others: readonly string[] }> {
  const answers = await askOf(qmp);
  try {
    const { disks } = judgeDisks(answers, shared, known);
    const isKnown = (disk: FoundDisk) =>
      known.some(({ id, bytes, node }) => id === disk.id && bytes === disk.bytes && node === disk.node);
    return {
      disks: disks.filter(isKnown),
      others: describeDisks(disks.filter((disk) => !isKnown(disk))).map(
        (disk) => `${disk}: start Romulus again`,
      ),
    };
  } catch (error) {
    if (!(error instanceof HypervisorError)) throw error;
    return { disks: known, others: [error.message] };
  }
}

async function askOf(qmp: QmpClient): Promise<DiskAnswers> {
  const [block, tree] = await Promise.all([listOf(qmp, 'query-block'), qmp.human('info qtree')]);
  const kinds = await Promise.all(block.map((each) => kindOf(qmp, text(each['qdev']))));
  return { block, kinds, tree };
}

/**
 * `known`: what was found before, if it may be mirrored now.
 * @throws HypervisorError BAD_CONFIGURATION as findDisks()
 */
export function judgeDisks(
  { block, kinds, tree }: DiskAnswers,
  shared: readonly string[],
  known: readonly FoundDisk[] = [],
): FoundDisks {
  const disks: FoundDisk[] = [];
  const notes: string[] = [];
  for (const [index, device] of block.entries()) {
    const { inserted } = device;
    if (!isObject(inserted) || inserted['ro'] === true) continue;
    const names = namesOf(device, inserted, known);
    if (names.all.some((name) => shared.includes(name))) continue;
    const refuse = (reason: string) => refused(names.fitting ?? names.all.join(' '), reason);
    const reason = whyNot(device, inserted, kinds[index] ?? '');
    if (reason !== null) throw refuse(reason);
    if (names.fitting === undefined) {
      throw refuse('it has no name that is the same on both hosts: give its -drive or -device an id');
    }
    if (disks.some(({ node }) => node === names.node)) throw refuse('two devices of the guest are on it');
    if (disks.some(({ id }) => id === names.fitting)) throw refuse('another disk has this name');
    disks.push({
      ...{ id: names.fitting, node: names.node, drive: text(device['device']) },
      ...{ bytes: bytesOf(inserted, refuse), format: text(inserted['drv']) },
    });
    if (isEncrypted(inserted)) {
      notes.push(`the disk ${names.fitting} is encrypted: what is replicated of it is plaintext`);
    }
  }
  refuseNodeless(tree);
  return { disks, shared, notes };
}

/** What is the same in whatever QEMU has these disks: see Inventory. */
export function describeDisks(disks: readonly FoundDisk[]): string[] {
  return disks.map(({ id, bytes }) => `${id} ${bytes}`);
}

interface Names {
  /** That it can be named by on both hosts. */
  readonly fitting: string | undefined;
  /** All, of whatever kind. */
  readonly all: readonly string[];
  readonly node: string;
}

function namesOf(device: JsonObject, inserted: JsonObject, known: readonly FoundDisk[]): Names {
  const shown = text(inserted['node-name']);
  // What hides behind our filter.
  const hidden = known[filterIndexOf(shown) ?? -1];
  const node = hidden?.node ?? shown;
  const drive = text(device['device']);
  const qdev = text(device['qdev']);
  const named = qdev.includes('/') ? (NAMED_DEVICE.exec(qdev)?.[1] ?? '') : qdev;
  const all = [...new Set([drive, named, qdev, node])].filter((name) => name !== '');
  // QEMU makes up names for nodes that have none.
  const given = [drive, named, node.startsWith('#') || node.startsWith(OURS) ? '' : node];
  return { fitting: given.find((name) => ID.test(name)), all, node };
}

function whyNot(device: JsonObject, inserted: JsonObject, kind: string): string | null {
  const [, reason] = KINDS_REFUSED.find(([kinds]) => kinds.test(kind)) ?? [];
  if (reason !== undefined) return reason;
  if (device['removable'] === true) return 'its medium may be changed; make it read-only';
  const { image } = inserted;
  const isTemporary =
    isObject(image) && isObject(image['backing-image']) && SNAPSHOT_FILE.test(text(image['filename']));
  if (isTemporary) return 'it is temporary (snapshot=on): what is written to it is dropped when QEMU ends';
  return null;
}

/** @throws HypervisorError as findDisks() */
function bytesOf({ image }: JsonObject, refuse: (reason: string) => HypervisorError): number {
  const bytes = isObject(image) ? image['virtual-size'] : undefined;
  if (typeof bytes === 'number' && Number.isSafeInteger(bytes) && bytes > 0 && bytes % 512 === 0)
    return bytes;
  throw refuse(`it is not of whole sectors of 512 octets (${String(bytes)})`);
}

function isEncrypted({ image, encrypted }: JsonObject): boolean {
  return encrypted === true || (isObject(image) && image['encrypted'] === true);
}

/** @throws HypervisorError as findDisks() */
function refuseNodeless(tree: string): void {
  for (const line of tree.split(/\r?\n/)) {
    const [, kind, id] = NODELESS_DEVICE.exec(line) ?? [];
    if (kind !== undefined) throw refused(id || kind, BYPASS);
  }
}

/** @throws HypervisorError as findDisks() */
export function refuseUsed(
  disks: readonly FoundDisk[],
  jobs: readonly JsonObject[],
  exports: readonly JsonObject[],
): void {
  for (const job of jobs.map(({ device }) => text(device))) {
    if (disks.length === 0 || job.startsWith(OURS)) continue;
    // QEMU does not say of which disk a job is, unless by its name.
    const one = disks.find(({ id, drive }) => id === job || drive === job);
    const reason = `a block job is under way (${job}): let it end, or cancel it`;
    throw refused(one?.id ?? disks.map(({ id }) => id).join(' '), reason);
  }
  for (const each of exports) {
    const id = text(each['id']);
    const disk = disks.find(({ node }) => node === each['node-name']);
    if (disk && !id.startsWith(OURS)) {
      throw refused(disk.id, `it is exported (${id}), so that others may write to it; remove the export`);
    }
  }
}

export function refused(disk: string, reason: string): HypervisorError {
  return badConfiguration(
    `the disk ${disk} cannot be replicated: ${reason} (or put it on storage that both hosts see, and name it in sharedDisks)`,
    { disk, reason },
  );
}

async function kindOf(qmp: QmpClient, qdev: string): Promise<string> {
  if (qdev === '') return '';
  const path = qdev.includes('/') ? qdev : `/machine/peripheral/${qdev}`;
  try {
    return text(await qmp.execute('qom-get', { path, property: 'type' }));
  } catch (error) {
    if (error instanceof QmpError) return ''; // it has gone meanwhile
    throw error;
  }
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
