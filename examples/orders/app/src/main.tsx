import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { App } from './App.js';
import { configure, newId } from './generated/index.js';
import { switchedFetch } from './network.js';
import './styles.css';

/** Everybody in the demo works for the same café; who one is, the device remembers. */
const TENANT = 'cafe';

const waiter = (localStorage.waiter ??= `waiter-${newId().slice(0, 4)}`) as string;

configure({
  url: location.origin,
  tenantId: TENANT,
  userId: waiter,
  transport: { fetch: switchedFetch },
});

const root = document.getElementById('root');
if (root === null) throw new Error('the page has no element #root');
createRoot(root).render(
  <StrictMode>
    <App waiter={waiter} />
  </StrictMode>,
);
