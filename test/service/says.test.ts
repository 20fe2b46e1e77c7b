// What the services say by themselves, for whoever waits for a link: what was chosen, and why there is none.

import { once } from 'node:events';
import net from 'node:net';
import { expect } from 'chai';
import { parsePrimaryConfig, parseSecondaryConfig } from '../../src/config/load.js';
import { dial } from '../../src/channel/dial/dialer.js';
import { MemoryDomain } from '../memory/domain.js';
import { HypervisorError, type SourceDomain } from '../../src/hypervisor/port.js';
import { createPrimaryService } from '../../src/service/primary-service.js';
import { createSecondaryService } from '../../src/service/secondary-service.js';
import { defaultTokenFile, readToken } from '../../src/channel/credentials/token-file.js';
import { captureLog } from '../support/capture.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { PAGES } from './world.js';

const hypervisor = { kind: 'embedded' };

async function closedPort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

describe('service: what is said', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it('why a secondary has no link: each reason once, however often it tries', async () => {
    const { log, lines } = captureLog();
    const says = (text: string) => lines().filter(({ msg }) => msg === text);
    const secondary = createSecondaryService(
      parseSecondaryConfig({
        domains: [
          {
            ...{ name: 'alpha', primary: `ws://127.0.0.1:${await closedPort()}`, hypervisor },
            failover: { redialMinMs: 5, redialMaxMs: 5 },
          },
        ],
      }),
      {
        log,
        openTarget: ({ name }) => Promise.resolve(new MemoryDomain({ name, pages: PAGES, empty: true })),
      },
    );
    cleanup.add(() => secondary.stop());
    await secondary.start();
    await until('it tries again', () => says('dial failed').length >= 3);
    const told = says('no link to the primary').map(({ level, code, reason }) => ({ level, code, reason }));
    expect(told).to.deep.equal([{ level: 'info', code: 'REFUSED', reason: 'nobody listens there' }]);
  });

  /** A primary whose network can no longer be reached, because its domain is gone, is fenced. */
  async function fencedWarnings(changes: Partial<SourceDomain>): Promise<unknown[]> {
    const { log, lines } = captureLog();
    const done = () => Promise.resolve();
    const gone = () => Promise.reject(new HypervisorError('DOMAIN_GONE', 'The domain is destroyed.'));
    const gate = { seal: done, release: done, pass: done, hold: done, restart: done, discard: gone };
    const counts = { heldBytes: 0, emittedBytes: 0, releasedBytes: 0 };
    const primary = createPrimaryService(
      parsePrimaryConfig({ listen: { port: 0 }, domains: [{ name: 'alpha', hypervisor }] }),
      {
        log,
        openSource: ({ name }) =>
          Promise.resolve(
            Object.assign(new MemoryDomain({ name, pages: PAGES }), {
              gates: [{ ...gate, ...counts }],
              ...changes,
            }),
          ),
      },
    );
    cleanup.add(() => primary.stop());
    await primary.start();
    const hello = {
      ...{ domain: 'alpha', host: 'south', pairing: null, shared: null },
      ...{ hypervisor: 'memory', domainType: 2, p2mSize: PAGES, inventory: {} },
    };
    const url = `ws://127.0.0.1:${primary.port}`;
    const token = readToken(defaultTokenFile());
    const link = await dial({
      url,
      token,
      hello: { role: 'standby', streamUuid: null, epoch: null, ...hello },
    });
    const { streamUuid } = link.welcome;
    await until('epoch 0', () => primary.statuses()[0]?.epochSeen === 0);
    await dial({ url, token, hello: { role: 'active', streamUuid, epoch: 0, ...hello } }).catch(
      () => undefined,
    ); // told that it was heard
    await primary.finished;
    expect(primary.statuses()[0]?.role).to.equal('fenced');
    await primary.stop();
    return lines()
      .filter(({ level, msg }) => level === 'warn' && String(msg).startsWith('could not'))
      .map(({ msg }) => msg);
  }

  it('nothing of a domain that is gone when its output is to be discarded; but of one that may run on', async () => {
    expect(await fencedWarnings({})).to.deep.equal([]);
    expect(await fencedWarnings({ leave: () => Promise.resolve([]) })).to.deep.equal([
      'could not discard output',
    ]);
  });

  it('a secondary that does not fit: once for each reason, however often it dials', async () => {
    const { log, lines } = captureLog();
    const primary = createPrimaryService(
      parsePrimaryConfig({ listen: { port: 0 }, domains: [{ name: 'alpha', hypervisor }] }),
      { log, openSource: ({ name }) => Promise.resolve(new MemoryDomain({ name, pages: PAGES })) },
    );
    cleanup.add(() => primary.stop());
    await primary.start();
    const refused = () =>
      lines()
        .filter(({ msg }) => String(msg).startsWith('connection refused'))
        .map(({ pages, msg }) => pages ?? msg);
    const dialled = async (pages: number, times: number): Promise<void> => {
      const { log: own, lines: said } = captureLog();
      const secondary = createSecondaryService(
        parseSecondaryConfig({
          domains: [
            {
              ...{ name: 'alpha', primary: `ws://127.0.0.1:${primary.port}`, hypervisor },
              failover: { redialMinMs: 5, redialMaxMs: 5 },
            },
          ],
        }),
        {
          log: own,
          openTarget: ({ name }) => Promise.resolve(new MemoryDomain({ name, pages, empty: true })),
        },
      );
      await secondary.start();
      if (pages === PAGES) await until('linked', () => primary.statuses()[0]?.link === 'replicating');
      else await until('dials', () => said().filter(({ msg }) => msg === 'dial failed').length >= times);
      await secondary.stop();
    };
    await dialled(PAGES + 1, 3);
    expect(refused()).to.have.length(1);
    await dialled(PAGES + 2, 3);
    expect(refused()).to.have.length(2);
    await dialled(PAGES, 1); // it fits now
    await dialled(PAGES + 2, 3);
    expect(refused()).to.have.length(3);
  });

  it('what a domain’s hypervisor chose by itself', async () => {
    const { log, lines } = captureLog({ level: 'info' });
    const primary = createPrimaryService(
      parsePrimaryConfig({ listen: { port: 0 }, domains: [{ name: 'alpha', hypervisor }] }),
      {
        log,
        openSource: ({ name }) =>
          Promise.resolve(
            Object.assign(new MemoryDomain({ name, pages: PAGES }), { notes: ['fast, as root'] }),
          ),
      },
    );
    cleanup.add(() => primary.stop());
    await primary.start();
    expect(lines().filter(({ domain, msg }) => domain === 'alpha' && msg === 'fast, as root')).to.have.length(
      1,
    );
  });
});
