// Two hosts over TLS, with certificates that end, are renewed, or are somebody else's.

import { copyFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { createMemoryWitness } from '../../../src/failover/witnesses/memory.js';
import { Authority, type LeafFiles } from '../../support/authority.js';
import { captureLog } from '../../support/capture.js';
import { Cleanup } from '../../support/cleanup.js';
import { until } from '../../support/until.js';
import { WitnessLine } from '../../service/hosts.js';
import { Proxy } from '../../service/proxy.js';
import { TestPrimary, TestSecondary } from '../../service/world.js';

/** Time for both sides to link before a certificate of theirs ends. */
const VALID_SECONDS = 6;
/** Much longer than a TLS handshake takes on a busy host. */
const WINDOW_MS = 1000;

describe('service: certificates', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function authorityOf(): Promise<{ authority: Authority; directory: string }> {
    const directory = await cleanup.directory();
    return { authority: new Authority(directory), directory };
  }

  async function pairOf(onPrimary: LeafFiles, onSecondary: LeafFiles, primaryName?: string) {
    const [logs, theirs] = [captureLog(), captureLog()];
    const registers = createMemoryWitness();
    const line = new WitnessLine(registers);
    const primary = new TestPrimary({
      registers: line,
      file: { tls: onPrimary },
      hosts: { south: { name: '127.0.0.2' } },
      log: logs.log,
    });
    cleanup.add(() => primary.service.stop());
    await primary.start();
    const proxy = new Proxy(primary.port);
    const port = await proxy.listen();
    cleanup.add(() => proxy.close());
    const secondary = new TestSecondary(
      { port, registers },
      {
        failover: { reconnectWindowMs: WINDOW_MS },
        file: { tls: onSecondary },
        ...(primaryName !== undefined && { hosts: { north: { name: primaryName } } }),
        log: theirs.log,
      },
    );
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    const says = ({ lines }: typeof logs, text: RegExp) => lines().some(({ msg }) => text.test(String(msg)));
    return {
      ...{ primary, proxy, secondary, line },
      primarySays: (text: RegExp) => says(logs, text),
      secondarySays: (text: RegExp) => says(theirs, text),
    };
  }

  for (const side of ['primary', 'secondary'] as const) {
    it(`the ${side}’s expires while they are linked, and the link is cut: no failover, both say why, a new one mends it`, async () => {
      const { authority, directory } = await authorityOf();
      const names = { primary: 'IP:127.0.0.1', secondary: 'IP:127.0.0.2' };
      const end = new Date(Date.now() + VALID_SECONDS * 1000);
      const ending = authority.issue({ names: names[side], until: end });
      const renewed = authority.issue({ names: names[side] });
      const good = authority.issue({ names: names[side === 'primary' ? 'secondary' : 'primary'] });
      const files = {
        cert: path.join(directory, 'now.crt'),
        key: path.join(directory, 'now.key'),
        ca: ending.ca,
      };
      const put = (leaf: LeafFiles) => {
        copyFileSync(leaf.key, files.key);
        copyFileSync(leaf.cert, files.cert);
      };
      put(ending);
      const world = await (side === 'primary' ? pairOf(files, good) : pairOf(good, files));
      const { primary, proxy, secondary, line, primarySays, secondarySays } = world;
      await until('checkpoints', () => primary.checkpoints.length > 3);
      expect(Date.now(), 'linked in time').to.be.lessThan(end.getTime());
      await until('it has expired', () => Date.now() > end.getTime() + 1500, 2000 + VALID_SECONDS * 1000);
      expect(secondary.status().link, 'a link that stands goes on').to.equal('replicating');

      // The register would let the secondary take over.
      line.isCut = true;
      const connections = proxy.connections;
      proxy.cut();
      await until('dialled again and again', () => proxy.connections > connections + 10);
      await sleep(3 * WINDOW_MS);
      expect(secondary.failovers).to.deep.equal([]);
      expect(secondary.status()).to.include({ role: 'standby', link: 'suspect' });
      expect(secondary.status().error?.code).to.equal('TLS');
      expect(secondary.status().error?.message).to.include('has expired on');
      expect(primary.status()).to.include({ role: 'primary', link: 'down' });
      const refusal =
        side === 'primary' ? /the secondary refuses us: .* has expired on/ : /certificate .* has expired on/;
      await until(
        'both say so',
        () => primarySays(refusal) && secondarySays(/^refused: the primary .* has expired on/),
      );

      put(renewed);
      await (side === 'primary' ? primary : secondary).service.reload();
      const before = primary.checkpoints.length;
      await until('linked again', () => primary.checkpoints.length > before + 3);
      expect(secondary.status().error).to.equal(null);
      expect(secondary.failovers).to.deep.equal([]);
    });
  }

  it('the primary dies for good while TLS keeps them apart: nobody listens, and that is no TLS failure', async () => {
    const { authority } = await authorityOf();
    const own = authority.issue({ names: 'IP:127.0.0.2' });
    const { primary, proxy, secondary, line } = await pairOf(authority.issue(), own);
    await until('checkpoints', () => primary.checkpoints.length > 3);
    const impostor = new TestPrimary({
      file: { tls: authority.issue({ names: 'IP:127.0.0.3' }) },
    });
    cleanup.add(() => impostor.service.stop());
    await impostor.start();
    line.isCut = true;
    proxy.target = impostor.port;
    proxy.cut();
    await until('refused', () => secondary.status().error?.code === 'NAME_REFUSED');
    await sleep(2 * WINDOW_MS);
    expect(secondary.failovers).to.deep.equal([]);
    await proxy.close();
    await until('failover', () => secondary.failovers.length === 2);
  });

  it('the secondary of another domain is refused by its name, and both say so', async () => {
    const { authority } = await authorityOf();
    const other = authority.issue({ names: 'IP:127.0.0.3,DNS:db.example.org' });
    const { primary, secondary, primarySays, secondarySays } = await pairOf(authority.issue(), other);
    await until('refused', () => secondary.status().error?.code === 'NAME_REFUSED');
    const why =
      /its certificate is for IP Address:127\.0\.0\.3, DNS:db\.example\.org; as secondary of alpha, 127\.0\.0\.2 is allowed/;
    await until('both say so', () => primarySays(why) && secondarySays(why));
    expect(primary.status().link).to.equal('down');
  });

  it('the primary’s name may be told apart from its address', async () => {
    const { authority } = await authorityOf();
    const own = authority.issue({ names: 'IP:127.0.0.2' });
    const alpha = authority.issue({ names: 'DNS:alpha.example.org' });
    const { primary, secondary } = await pairOf(alpha, own, 'alpha.example.org');
    await until('checkpoints', () => primary.checkpoints.length > 3);
    const certificates = secondary.status().certificates?.map(({ certificate }) => certificate);
    expect(certificates).to.deep.equal(['own', 'authority']);
    expect(primary.service.statuses()[0]?.certificates).to.have.length(2);
  });
});
