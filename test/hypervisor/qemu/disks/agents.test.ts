// Two agents, and a guest with several writers: whenever its standby has committed a checkpoint, the standby's image is
// the owner's as of that checkpoint's pause, and so it is when that is taken over; and again the other way round.

import { expect } from 'chai';
import { codeOf } from '../../../../src/errors.js';
import type { HostName } from '../../../service/agent-pair.js';
import { Cleanup } from '../../../support/cleanup.js';
import { LONG } from '../../../support/length.js';
import { until } from '../../../support/until.js';
import { needQemu } from '../support.js';
import { Hosts, PATIENCE_MS, type HostImage, type HostImages } from './agent-hosts.js';
import { BYTES, WRITERS, imageOf, writersArguments } from './lab.js';
import { MIB, needQemuTools, qemuImg, rawImage } from './support.js';

const KILLS = LONG ? 20 : 2;
const FEW_COMMITS = 10;

async function oneDisk(cleanup: Cleanup): Promise<Hosts> {
  const image = async (): Promise<HostImage[]> => [{ file: await imageOf(cleanup, 'raw'), format: 'raw' }];
  return Hosts.start(cleanup, {
    images: { alpha: await image(), beta: await image() },
    argumentsOf: ([disk]) => writersArguments(`file=${disk?.file ?? ''},format=raw`),
  });
}

/** At two virtio-blk, one of them with a thread of its own, and at the first IDE port. On the owner's host one is a qcow2. */
async function threeDisks(cleanup: Cleanup): Promise<Hosts> {
  const bytes = [BYTES, 3 * MIB, MIB + 512];
  const imagesOf = async (formats: readonly HostImage['format'][]): Promise<HostImage[]> => {
    const directory = await cleanup.directory();
    const images = formats.map((format, index) => ({ file: `${directory}/image-${index}`, format }));
    for (const [index, { file, format }] of images.entries()) {
      if (format === 'raw') await rawImage(file, bytes[index] ?? 0);
      else await qemuImg('create', '-q', '-f', format, file, String(bytes[index]));
    }
    return images;
  };
  const images: HostImages = {
    alpha: await imagesOf(['raw', 'qcow2', 'raw']),
    beta: await imagesOf(['raw', 'raw', 'raw']),
  };
  const ids = ['fast', 'other', 'slow'];
  const devices = [
    'virtio-blk-pci,drive=fast,disable-modern=on,iothread=io',
    'virtio-blk-pci,drive=other,disable-modern=on',
    'ide-hd,drive=slow,bus=ide.0',
  ];
  return Hosts.start(cleanup, {
    images,
    machine: 'pc',
    argumentsOf: (disks) => [
      ...['-kernel', WRITERS, '-object', 'iothread,id=io'],
      ...disks.flatMap(({ file, format }, index) => [
        ...['-drive', `if=none,id=${ids[index] ?? ''},file=${file},format=${format}`],
        ...['-device', devices[index] ?? ''],
      ]),
    ],
  });
}

/** Where both hosts are one process that compares images, neither is always on time: asked again. */
async function switchover({ two }: Hosts): Promise<void> {
  for (let isSwitched = false; !isSwitched;) {
    await two?.paired();
    const code = await two
      ?.agent('alpha')
      .switchover('web')
      .then(() => null, codeOf);
    if (code !== null) expect(code).to.equal('NOT_PAIRED');
    isSwitched = code === null;
  }
}

describe('qemu disks: two agents', function () {
  this.timeout((1 + KILLS) * PATIENCE_MS);
  const cleanup = new Cleanup();
  before(async function () {
    await needQemu(this);
    await needQemuTools(this);
  });
  afterEach(() => cleanup.run());

  it('each commit is the disk as of its pause; also the other way round, after a switchover', async () => {
    const hosts = await oneDisk(cleanup);
    await hosts.commits();
    await switchover(hosts);
    hosts.turns('alpha');
    await hosts.two?.paired();
    await hosts.commits();
  });

  it(`the owner’s QEMU is killed, ${KILLS} times: what is taken over is one moment, and its image is used again`, async () => {
    const hosts = await oneDisk(cleanup);
    let owner: HostName = 'alpha';
    for (let kill = 0; kill < KILLS; kill++) {
      await hosts.commits();
      await hosts.two?.paired();
      const { compared } = hosts;
      hosts.killOwner(owner);
      const other: HostName = owner === 'alpha' ? 'beta' : 'alpha';
      await until('it is taken over', () => hosts.two?.owner === other, PATIENCE_MS);
      expect(hosts.compared, 'also what is taken over').to.be.greaterThan(compared);
      expect(hosts.different).to.equal(0);
      hosts.turns(owner);
      owner = other;
    }
    await hosts.two?.paired();
    await hosts.commits();
  });

  it('three disks of different kinds, sizes and formats are of one moment, at commits, after a switchover and a death', async () => {
    const hosts = await threeDisks(cleanup);
    await hosts.commits(FEW_COMMITS);
    await switchover(hosts);
    expect(hosts.takeovers, 'handed over').to.equal(1);
    hosts.turns('alpha');
    await hosts.two?.paired();
    await hosts.commits(FEW_COMMITS);
    const disks = hosts.two?.status('beta').disks ?? [];
    expect(disks.map(({ disk, bytes, inStep }) => [disk, bytes, inStep])).to.deep.equal([
      ['fast', BYTES, true],
      ['other', 3 * MIB, true],
      ['slow', MIB + 512, true],
    ]);
    for (const { writeRequests, writtenBytes } of disks) {
      expect(Math.min(writeRequests, writtenBytes / 512)).to.be.greaterThan(0);
    }
    hosts.killOwner('beta');
    await until('it is taken over', () => hosts.two?.owner === 'alpha', PATIENCE_MS);
    expect(hosts.takeovers).to.equal(2);
    expect(hosts.different).to.equal(0);
  });
});
