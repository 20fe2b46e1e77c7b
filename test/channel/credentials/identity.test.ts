// Whose certificate is taken, by either side; and that whoever is refused is told why.

import { expect } from 'chai';
import type { ChannelErrorCode } from '../../../src/channel/contract.js';
import { dial, type DialOptions } from '../../../src/channel/dial/dialer.js';
import { Authority, read, type LeafFiles, type LeafOptions } from '../../support/authority.js';
import { Cleanup } from '../../support/cleanup.js';
import { until } from '../../support/until.js';
import { TestPrimary, errorOf, helloOf } from '../support.js';

const past = (seconds: number) => new Date(Date.now() - seconds * 1000);

describe('TLS: who the other side is', () => {
  const cleanup = new Cleanup();
  const made = new Cleanup();
  let authority: Authority;
  let stranger: Authority;
  let good: LeafFiles;
  before(async () => {
    const directory = await made.directory();
    authority = new Authority(directory);
    stranger = new Authority(directory, 'stranger');
    good = authority.issue();
  });
  afterEach(() => cleanup.run());
  after(() => made.run());

  async function primaryOf(files: LeafFiles, names = ['127.0.0.1']) {
    const primary = await new TestPrimary({ tls: read(files) }, names).start();
    cleanup.add(() => primary.listener.close());
    return primary;
  }

  const options = (test: TestPrimary, files: LeafFiles, more: Partial<DialOptions> = {}): DialOptions => ({
    url: test.url.replace('ws:', 'wss:'),
    hello: helloOf(),
    tls: read(files),
    ...more,
  });

  const strangers: [string, () => LeafFiles, ChannelErrorCode, RegExp][] = [
    [
      'has expired',
      () => authority.issue({ from: past(100), until: past(10) }),
      'TLS',
      /has expired on \w{3} +\d/,
    ],
    ['is not valid yet', () => authority.issue({ from: past(-1000) }), 'TLS', /is not valid before/],
    [
      'is of another authority',
      () => ({ ...stranger.issue(), ca: authority.file }),
      'TLS',
      /an authority that is not in ca/,
    ],
    [
      'is of another host',
      () => authority.issue({ names: 'IP:127.0.0.2,DNS:else' }),
      'NAME_REFUSED',
      /IP Address:127\.0\.0\.2, DNS:else/,
    ],
    ['has no names', () => authority.issue({ names: '' }), 'NAME_REFUSED', /is for no name/],
  ];
  for (const [what, leaf, code, why] of strangers) {
    it(`a secondary whose certificate ${what} is refused: ${code}, and both know why`, async () => {
      const test = await primaryOf(good);
      const files = leaf();
      const error = await errorOf(dial(options(test, files)));
      expect(error.code).to.equal(code);
      expect(error.message).to.match(why);
      // Said once, however often it comes.
      await errorOf(dial(options(test, files)));
      expect(test.log.map((line) => line.code)).to.deep.equal([code]);
      expect(test.log[0]?.message).to.match(why);
    });

    it(`a primary whose certificate ${what} is not trusted: ${code}, and both know why`, async () => {
      const test = await primaryOf(leaf());
      const error = await errorOf(dial(options(test, good)));
      expect(error.code).to.equal(code);
      expect(error.message)
        .to.match(/^the primary is not trusted: /)
        .and.to.match(why);
      await until('the primary logs it', () => test.log.length > 0);
      expect(test.log[0]?.code).to.equal(code);
      expect(test.log[0]?.message)
        .to.match(/the secondary refuses us: /)
        .and.to.match(why);
    });
  }

  const uses: [string, LeafOptions, LeafOptions, boolean][] = [
    ['each for its side', { use: 'serverAuth' }, { use: 'clientAuth' }, true],
    ['the secondary’s is a server’s', {}, { use: 'serverAuth' }, false],
    ['the primary’s is a client’s', { use: 'clientAuth' }, {}, false],
  ];
  for (const [what, onPrimary, onSecondary, fits] of uses) {
    it(`extended key usage: ${what}`, async () => {
      const test = await primaryOf(authority.issue(onPrimary));
      const given = options(test, authority.issue(onSecondary));
      if (fits) await (await dial(given)).bye('shutdown');
      else expect((await errorOf(dial(given))).message).to.include('is not made for this side');
    });
  }

  it('names: an address, a host name, one of several; no wildcard, and nobody where none is named', async () => {
    const named = authority.issue({ names: 'DNS:beta.example.org,IP:127.0.0.1' });
    const wild = authority.issue({ names: 'DNS:*.example.org' });
    const outcome = async (names: string[], files: LeafFiles) => {
      const test = await primaryOf(good, names);
      try {
        await (await dial(options(test, files))).bye('shutdown');
        return 'linked';
      } catch (error) {
        return (error as { code: string }).code;
      }
    };
    expect(await outcome(['BETA.example.org'], named)).to.equal('linked');
    expect(await outcome(['gamma', '127.0.0.1'], named)).to.equal('linked');
    expect(await outcome(['beta.example.org'], wild)).to.equal('NAME_REFUSED');
    expect(await outcome(['example.org'], named)).to.equal('NAME_REFUSED');
    expect(await outcome([], named)).to.equal('NAME_REFUSED');
  });

  it('each domain has names of its own, and another’s secondary is not linked', async () => {
    const test = await primaryOf(good, ['web.example.org']);
    const web = authority.issue({ names: 'DNS:web.example.org' });
    const db = authority.issue({ names: 'DNS:db.example.org' });
    expect((await errorOf(dial(options(test, db)))).code).to.equal('NAME_REFUSED');
    expect(test.links).to.deep.equal([]);
    await (await dial(options(test, web))).bye('shutdown');
  });

  it('the primary’s name may be another than its address', async () => {
    const test = await primaryOf(authority.issue({ names: 'DNS:alpha.example.org' }));
    expect((await errorOf(dial(options(test, good)))).code).to.equal('NAME_REFUSED');
    const link = await dial(options(test, good, { primaryName: 'alpha.example.org' }));
    await link.bye('shutdown');
  });

  it('a new certificate is for those who come; a link that stands goes on', async () => {
    const test = await primaryOf(authority.issue({ from: past(100), until: past(10) }));
    expect((await errorOf(dial(options(test, good)))).code).to.equal('TLS');
    test.listener.renew({ tls: read(good) });
    const { primary, secondary } = await test.pair(options(test, good));
    test.listener.renew({ tls: read(stranger.issue()) });
    let heard = 0;
    const subscription = primary.events$.subscribe((event) => (heard += Number(event.kind === 'heard')));
    await until('heartbeats', () => heard > 3);
    subscription.unsubscribe();
    await secondary.bye('shutdown');
    expect((await errorOf(dial(options(test, good)))).code).to.equal('TLS');
  });
});
